//! `wirestack top`: the connections and counters of a program that runs, like `top` and `ss -ti`.
//!
//! It asks through the program's control socket ([`crate::control`]), once an interval, and computes rates from two
//! answers. It ends with status 0 when it is told to, and when the program that it watches ends; that is told in a line.
//! A program that is not there at the start is status 2, and one that is there and cannot be asked 1.
//!
//! | file | what it is |
//! |---|---|
//! | `args` | flags |
//! | `find` | which program |
//! | `rates` | what has changed between two reports |
//! | `once` | as text and JSON, for pipes |
//! | `view`, `draw` | what is on the screen, and what keys do to it |
//! | `screen` | the terminal, given back however it ends |

pub mod args;
mod draw;
mod find;
mod once;
mod rates;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::path::Path;
use std::time::Duration;

use crate::control::{AskError, ask};
use crate::error::AppError;
use crate::report::{CONNECTIONS_MAX, Report, Request, Sort};
use crate::serve::print;
use args::TopArgs;
use rates::Look;

/// Shows until it is told to end.
///
/// # Errors
/// What is wrong with the flags, or with the program that is watched, in one line.
pub fn run(args: &TopArgs) -> Result<(), AppError> {
    if !args.once {
        screen::check()?;
    }
    let path = find::find(args.target.as_deref())?;
    let first = look(&path, args.sort).map_err(|error| not_asked(&path, &error))?;
    if !args.once {
        return screen::run(args, path, first);
    }
    std::thread::sleep(Duration::from_secs_f64(args.interval));
    let second = look(&path, args.sort).map_err(|error| match error {
        AskError::Gone => AppError::running(ended(&first)),
        error => AppError::running(format_args!("{}: {error}", path.display())),
    })?;
    let mut look = Look::new(Some(&first), second, args.sort);
    look.rows.truncate(args.count.unwrap_or(CONNECTIONS_MAX));
    if args.json {
        print(once::to_json(&look));
    } else {
        print(once::to_text(&look).trim_end());
    }
    Ok(())
}

/// A report, with all connections that it may list: the first by what is known to the program need not be the first by
/// what two reports say.
fn look(path: &Path, sort: Sort) -> Result<Report, AskError> {
    let mut report = ask(path, Request { connections: CONNECTIONS_MAX, sort })?;
    words::clean(&mut report);
    Ok(report)
}

fn not_asked(path: &Path, error: &AskError) -> AppError {
    let message = format!("{}: {error}", path.display());
    match error {
        AskError::Silent => AppError::running(message),
        AskError::Gone | AskError::Refused(_) | AskError::Odd(_) => AppError::usage(message),
    }
}

/// The last line about a program.
fn ended(report: &Report) -> String {
    format!("{} (process {}) has ended", report.program, report.pid)
}
