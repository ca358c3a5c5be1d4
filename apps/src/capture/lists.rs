//! `--allow` and `--deny`: lists of prefixes that frames are held against, one by one.

use std::fs;
use std::path::Path;

use wirestack::nic::filter::{ListKind, PrefixSet};

use super::args::CaptureArgs;
use crate::error::AppError;

/// The lists that were given.
#[derive(Debug, Default)]
pub(super) struct Lists {
    sets: Vec<PrefixSet>,
}

impl Lists {
    /// Reads the files.
    pub(super) fn read(args: &CaptureArgs) -> Result<Self, AppError> {
        let given = [
            ("--allow", ListKind::Allow, args.allow.as_deref()),
            ("--deny", ListKind::Deny, args.deny.as_deref()),
        ];
        let given = given.into_iter().filter_map(|(flag, kind, path)| Some((flag, kind, path?)));
        let sets = given.map(|(flag, kind, path)| read(flag, kind, path)).collect::<Result<_, _>>()?;
        Ok(Self { sets })
    }

    /// Whether no list keeps this frame out.
    pub(super) fn pass(&self, frame: &[u8]) -> bool {
        self.sets.iter().all(|set| set.decide(frame))
    }
}

fn read(flag: &str, kind: ListKind, path: &Path) -> Result<PrefixSet, AppError> {
    let bytes = fs::read(path).map_err(|error| AppError::flag(flag, path.display(), error))?;
    // What is no text is no prefix either, and that is told with its line.
    PrefixSet::parse(kind, &String::from_utf8_lossy(&bytes))
        .map_err(|error| AppError::flag(flag, path.display(), error))
}
