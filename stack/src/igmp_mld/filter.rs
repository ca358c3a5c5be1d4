//! Which sources of a group somebody wants: one socket, or all sockets together (RFC 3376 section 3.2).

use std::collections::BTreeSet;
use std::net::IpAddr;

/// How the sources of a [`Filter`] are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterMode {
    /// Only these sources.
    Include,
    /// All sources but these.
    Exclude,
}

/// What is wanted of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// How `sources` are meant.
    pub mode: FilterMode,
    /// The sources; all of the family of the group.
    pub sources: BTreeSet<IpAddr>,
}

impl Filter {
    /// Any source: EXCLUDE {}.
    pub fn any() -> Self {
        Self { mode: FilterMode::Exclude, sources: BTreeSet::new() }
    }

    /// Nothing: INCLUDE {}, the same as no membership.
    pub fn none() -> Self {
        Self { mode: FilterMode::Include, sources: BTreeSet::new() }
    }

    /// Whether nothing is wanted.
    pub fn is_none(&self) -> bool {
        self.mode == FilterMode::Include && self.sources.is_empty()
    }

    /// Whether a packet of this source is wanted.
    pub fn passes(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == (self.mode == FilterMode::Include)
    }

    /// What all of these want together.
    pub(super) fn merge<'f>(filters: impl Iterator<Item = &'f Self>) -> Self {
        let mut included = BTreeSet::new();
        let mut excluded: Option<BTreeSet<IpAddr>> = None;
        for filter in filters {
            match (filter.mode, &mut excluded) {
                (FilterMode::Include, _) => included.extend(filter.sources.iter().copied()),
                (FilterMode::Exclude, Some(all)) => all.retain(|source| filter.sources.contains(source)),
                (FilterMode::Exclude, none) => *none = Some(filter.sources.clone()),
            }
        }
        match excluded {
            //= rfc3376#3.2
            //# if *any* such record has a filter mode of EXCLUDE, then the filter mode of the interface record
            //# is EXCLUDE
            // Its list is what nobody wants: in all lists of EXCLUDE and in none of INCLUDE.
            Some(mut sources) => {
                sources.retain(|source| !included.contains(source));
                Self { mode: FilterMode::Exclude, sources }
            }
            None => Self { mode: FilterMode::Include, sources: included },
        }
    }
}
