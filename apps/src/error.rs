//! The one way in which a program ends badly: a line on stderr and a status.

use std::fmt;

use crate::serve::{print, print_error};

/// What a program says before it ends, and the status with which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppError {
    /// One line: what is wrong, and what would be right. Empty: everything is said already.
    pub message: String,
    /// 2 for what the user can put right before the start, 1 for what happened later, 0 for `--help`.
    pub status: u8,
}

impl AppError {
    /// Something that the user gave, or the machine's state at the start.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status: 2 }
    }

    /// A flag, its value, and what is wrong with it.
    pub fn flag(flag: &str, value: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::usage(format_args!("{flag} {value}: {problem}"))
    }

    /// Something that happened after the start.
    pub fn running(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status: 1 }
    }

    /// Prints the line: errors on stderr, help on stdout.
    pub fn print(&self) {
        if self.status == 0 {
            print(self.message.trim_end());
        } else if !self.message.is_empty() {
            print_error(format_args!("wirestack: {}", self.message.trim_end()));
        }
    }
}
