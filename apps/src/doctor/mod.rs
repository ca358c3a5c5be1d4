//! `wirestack doctor`: whether a stack would run well on an interface, and if not, the command that helps.
//!
//! A line for each check: `ok`, `warn` or `fail`, what was found, and the fix. Nothing is changed on the system: sockets
//! and rings are opened and closed again, and rules against the kernel are tried in a network namespace that nobody else
//! sees. The status is 0 if nothing fails and 1 if something does.
//!
//! | file | what it is |
//! |---|---|
//! | `args` | flags |
//! | `facts` | what there is to know, and finding it out |
//! | `judge` | what it means: functions of the facts alone |

pub mod args;
mod facts;
mod judge;
mod sockets;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::error::AppError;
use crate::serve::print;
use args::DoctorArgs;
use facts::Facts;

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Good.
    Ok,
    /// It will run; something would be better, or could not be looked at.
    Warn,
    /// It will not run like this.
    Fail,
}

/// A check, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Which check.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// Commands that help, or what to write instead.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, found: impl fmt::Display) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.to_string(), fix: None }
    }

    pub(crate) fn warn(check: &'static str, found: impl fmt::Display) -> Self {
        Self { verdict: Verdict::Warn, ..Self::ok(check, found) }
    }

    pub(crate) fn fail(check: &'static str, found: impl fmt::Display) -> Self {
        Self { verdict: Verdict::Fail, ..Self::ok(check, found) }
    }

    pub(crate) fn fix(self, fix: impl fmt::Display) -> Self {
        Self { fix: Some(fix.to_string()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict:<5} {}: {}", self.check, self.found)?;
        match &self.fix {
            Some(fix) => write!(f, "; fix: {fix}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything, and prints it.
///
/// # Errors
/// Something fails: status 1, and everything is said already.
pub fn run(args: &DoctorArgs) -> Result<(), AppError> {
    let findings = judge::all(&Facts::find(args), args);
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let failed = count(Verdict::Fail);
    if args.json {
        print(serde_json::json!({
            "nic": format!("packet:{}", args.nic),
            "checks": findings,
            "ok": count(Verdict::Ok),
            "warn": count(Verdict::Warn),
            "fail": failed,
        }));
    } else {
        findings.iter().for_each(print);
    }
    if failed == 0 { Ok(()) } else { Err(AppError { message: String::new(), status: 1 }) }
}
