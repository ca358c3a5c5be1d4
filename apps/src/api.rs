//! `--api`: which of the stack's interfaces a program is written on.

use std::fmt;
use std::str::FromStr;

use crate::engine::Backend;
use crate::error::AppError;

/// The interfaces of the one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// Run to completion on the thread of the stack: events, and closures that see the buffers in place.
    Poll,
    /// The names and the ways of `std::net`, a thread for each connection.
    Blocking,
    /// Tasks of a runtime, whose threads are not those of the stack.
    Async,
    /// Tasks on the thread of the stack itself, without locks.
    Local,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Poll, Self::Blocking, Self::Async, Self::Local];

    /// What a person writes for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Blocking => "blocking",
            Self::Async => "async",
            Self::Local => "local",
        }
    }

    /// A reader of the value of `--api`, for a program that is written on these.
    pub fn parser(accepted: &'static [Self]) -> impl Fn(&str) -> Result<Self, String> + Clone + Send + Sync {
        move |text| {
            let named = accepted.iter().copied().find(|api| api.name() == text);
            named.ok_or_else(|| format!("{} is accepted", list(accepted)))
        }
    }

    /// The one that was asked for, or the default of the program. smoltcp's TCP is served by events only.
    ///
    /// # Errors
    /// Another one was asked for on smoltcp's TCP. One line.
    pub fn choose(asked: Option<Self>, default: Self, backend: Backend) -> Result<Self, AppError> {
        match (asked, backend) {
            (Some(api), Backend::Smoltcp) if api != Self::Poll => {
                Err(AppError::flag("--api", api, "with --backend smoltcp, poll is accepted"))
            }
            (None, Backend::Smoltcp) => Ok(Self::Poll),
            (asked, _) => Ok(asked.unwrap_or(default)),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parser(&Self::ALL)(text)
    }
}

/// `a, b or c`.
fn list(apis: &[Api]) -> String {
    match apis {
        [] => "nothing".to_owned(),
        [only] => only.to_string(),
        [first @ .., last] => {
            format!("{} or {last}", first.iter().map(|api| api.name()).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for api in Api::ALL {
            assert_eq!(api.to_string().parse(), Ok(api));
        }
        for wrong in ["", "Poll", "epoll", "poll "] {
            assert_eq!(wrong.parse::<Api>(), Err("poll, blocking, async or local is accepted".to_owned()));
        }
        let parse = Api::parser(&[Api::Poll, Api::Async]);
        assert_eq!(parse("async"), Ok(Api::Async));
        assert_eq!(parse("local"), Err("poll or async is accepted".to_owned()));
    }

    #[test]
    fn smoltcp_is_served_by_events() {
        let choose = |asked, backend| Api::choose(asked, Api::Async, backend);
        assert_eq!(choose(None, Backend::Wirestack), Ok(Api::Async));
        assert_eq!(choose(Some(Api::Local), Backend::Wirestack), Ok(Api::Local));
        assert_eq!(choose(None, Backend::Smoltcp), Ok(Api::Poll));
        assert_eq!(choose(Some(Api::Poll), Backend::Smoltcp), Ok(Api::Poll));
        let error = choose(Some(Api::Async), Backend::Smoltcp).expect_err("no such thing");
        assert_eq!(error.message, "--api async: with --backend smoltcp, poll is accepted");
    }
}
