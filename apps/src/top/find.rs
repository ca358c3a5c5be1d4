//! Which program is meant.

use std::path::PathBuf;

use super::words;
use crate::control::{Running, ask, running};
use crate::error::AppError;
use crate::report::{Request, Sort};
use crate::serve::print_error;

/// The socket of the program that is meant: by path or process, or else the only one.
///
/// # Errors
/// There is none, or there are several, which are listed. Status 2.
pub(super) fn find(target: Option<&str>) -> Result<PathBuf, AppError> {
    match target {
        Some(path) if path.contains('/') => Ok(path.into()),
        Some(pid) => by_pid(pid, &running()),
        None => only(running()),
    }
}

pub(super) fn by_pid(text: &str, running: &[Running]) -> Result<PathBuf, AppError> {
    let wrong = |problem: &str| AppError::flag("PID", text, problem);
    let pid: u32 = text.parse().map_err(|_| {
        wrong("a process number is accepted, or a path with a /, as in 4711 or ./wirestack.sock")
    })?;
    if let Some(found) = running.iter().find(|one| one.pid == pid) {
        return Ok(found.path.clone());
    }
    if running.is_empty() {
        return Err(wrong("it has no control socket, nor has any other process"));
    }
    let known: Vec<_> = running.iter().take(20).map(|one| one.pid.to_string()).collect();
    Err(wrong(&format!("it has no control socket; {} {}", known.join(", "), has(known.len()))))
}

fn has(len: usize) -> &'static str {
    if len == 1 { "has" } else { "have" }
}

/// The only one that answers.
fn only(running: Vec<Running>) -> Result<PathBuf, AppError> {
    let mut lines = Vec::new();
    let mut answering = Vec::new();
    for one in running {
        match ask(&one.path, Request { connections: 0, sort: Sort::Rate }) {
            Ok(mut report) => {
                words::clean(&mut report);
                let addresses = report.addresses.join(" ");
                lines.push(format!(
                    "{} {} {} {addresses} up {}",
                    one.pid,
                    report.program,
                    report.nic,
                    words::duration(report.uptime_seconds)
                ));
                answering.push(one.path);
            }
            Err(error) => lines.push(format!("{} {error}", one.pid)),
        }
    }
    choose(answering, &lines)
}

/// One answers: that is it. Otherwise all are listed.
pub(super) fn choose(mut answering: Vec<PathBuf>, lines: &[String]) -> Result<PathBuf, AppError> {
    if answering.len() == 1 {
        return Ok(answering.remove(0));
    }
    lines.iter().for_each(print_error);
    Err(AppError::usage(match (answering.len(), lines.len()) {
        (_, 0) => {
            "top: no program runs that can be asked; start one, or name its --control socket by its path"
                .to_owned()
        }
        (0, _) => "top: none of these can be asked".to_owned(),
        (several, _) => format!("top: {several} programs run; say which, as in wirestack top PID"),
    }))
}
