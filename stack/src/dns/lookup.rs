//! What one caller wants to know: the names to be tried, one after the other, and what came of them.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::time::Instant;

use super::message::{Data, Question};
use super::{Answer, Config, DnsError, Kind, Name, RecordType, Source};

/// What a question has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) data: Vec<Data>,
    pub(super) expires: Instant,
    pub(super) is_truncated: bool,
}

/// A question of a lookup, and its end if it has one.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) question: Question,
    pub(super) result: Option<Result<Found, DnsError>>,
}

/// One call of `resolve`.
#[derive(Debug)]
pub(super) struct Lookup {
    kind: Kind,
    candidates: VecDeque<Name>,
    pub(super) parts: Vec<Part>,
    has_no_data: bool,
    failure: Option<DnsError>,
}

impl Lookup {
    pub(super) fn new(kind: Kind, candidates: VecDeque<Name>) -> Self {
        Self { kind, candidates, parts: Vec::new(), has_no_data: false, failure: None }
    }

    /// Goes on with the next name. `false`: there is none.
    pub(super) fn next(&mut self) -> bool {
        let Some(name) = self.candidates.pop_front() else { return false };
        let types: &[RecordType] = match self.kind {
            Kind::A => &[RecordType::A],
            Kind::Aaaa => &[RecordType::Aaaa],
            Kind::Addresses => &[RecordType::Aaaa, RecordType::A],
            Kind::Ptr => &[RecordType::Ptr],
        };
        let part =
            |&record_type| Part { question: Question { name: name.clone(), record_type }, result: None };
        self.parts = types.iter().map(part).collect();
        true
    }

    /// Notes the end of a question.
    pub(super) fn take(&mut self, question: &Question, result: &Result<Found, DnsError>) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.question == *question) {
            part.result = Some(result.clone());
        }
    }

    /// The end of the lookup, if all questions about the current name have one. `None`: the next name is to
    /// be tried, or answers are still to come ([`Lookup::is_waiting`]).
    pub(super) fn conclude(&mut self) -> Option<Result<Answer, DnsError>> {
        if self.is_waiting() {
            return None;
        }
        if let Some(answer) = self.answer() {
            return Some(Ok(answer));
        }
        for error in self.parts.iter().filter_map(|part| part.result.as_ref()?.as_ref().err()) {
            match error {
                DnsError::NotFound => {}
                DnsError::NoData => self.has_no_data = true,
                // A server may fail for one domain only.
                DnsError::ServerFailure { .. } => self.failure = Some(*error),
                error => return Some(Err(*error)),
            }
        }
        None
    }

    /// The end if no name is left.
    pub(super) fn last_word(&self) -> DnsError {
        match (self.failure, self.has_no_data) {
            (Some(failure), _) => failure,
            (None, true) => DnsError::NoData,
            (None, false) => DnsError::NotFound,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.parts.iter().any(|part| part.result.is_none())
    }

    fn answer(&self) -> Option<Answer> {
        let results = || self.parts.iter().filter_map(|part| part.result.as_ref());
        let first = results().find_map(|result| result.as_ref().ok())?;
        let mut answer = Answer {
            name: first.name.to_string(),
            addresses: Vec::new(),
            names: Vec::new(),
            is_truncated: false,
            missing: None,
            source: Source::Dns,
            expires: Some(first.expires),
        };
        for result in results() {
            match result {
                Ok(found) => {
                    answer.is_truncated |= found.is_truncated;
                    answer.expires = answer.expires.min(Some(found.expires));
                    for data in &found.data {
                        match data {
                            Data::Address(address) => answer.addresses.push(*address),
                            Data::Name(name) => answer.names.push(name.to_string()),
                        }
                    }
                }
                Err(DnsError::NotFound | DnsError::NoData) => {}
                Err(error) => answer.missing = Some(*error),
            }
        }
        Some(answer)
    }
}

/// Whether an address is of the kind that was asked for.
pub(super) fn is_of_kind(kind: Kind, address: IpAddr) -> bool {
    match kind {
        Kind::A => address.is_ipv4(),
        Kind::Aaaa => address.is_ipv6(),
        Kind::Addresses => true,
        Kind::Ptr => false,
    }
}

/// The names to be tried for `name`, as the C library does it: a name with enough dots first as it is, one
/// with fewer first in the domains of the search list, and a name with a dot at its end only as it is.
pub(super) fn candidates(config: &Config, name: &Name, is_absolute: bool) -> VecDeque<Name> {
    if is_absolute {
        return VecDeque::from([name.clone()]);
    }
    let mut names: VecDeque<Name> = config.search.iter().filter_map(|domain| name.within(domain)).collect();
    if name.dots() >= config.ndots {
        names.push_front(name.clone());
    } else {
        names.push_back(name.clone());
    }
    names
}
