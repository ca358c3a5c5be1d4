//! A plan that holds as long as its guard lives.

use std::io;

use super::{Change, Plan, Roots, Setting};
use crate::restore::{Journal, JournalError, Recovery, Scope, recover as recover_journal};

/// Kind of the records of this module.
const KIND: &str = "tune";

/// What became of a change.
#[derive(Debug)]
pub enum Outcome {
    /// It holds.
    Set,
    /// The kernel took it and made this of it.
    Other(String),
    /// The kernel refused, and all is as before: EIO for an interrupt that the driver manages itself,
    /// EPERM or EACCES without root.
    Refused(io::Error),
}

/// Settings that are put back when this is dropped, or, after a crash, by [`recover`].
#[derive(Debug)]
pub struct AppliedGuard {
    roots: Roots,
    interface: String,
    journal: Option<Journal>,
    /// What was set, in order, with the value from before.
    changed: Vec<(Setting, String)>,
    /// What became of each change of the plan, in its order.
    pub outcomes: Vec<(Change, Outcome)>,
}

impl Plan {
    /// Sets everything, and reads back what holds then. A refusal is an [`Outcome`] and stops nothing.
    ///
    /// # Errors
    /// [`JournalError`]: another process has this interface, or left a record ([`recover`] comes
    /// first), or the record cannot be written. Nothing is changed without a record.
    pub fn apply(&self, roots: &Roots, scope: &Scope) -> Result<AppliedGuard, JournalError> {
        let mut guard = AppliedGuard {
            roots: roots.clone(),
            interface: self.interface.clone(),
            journal: Some(Journal::open(KIND, scope)?),
            changed: Vec::new(),
            outcomes: Vec::new(),
        };
        for change in &self.changes {
            let outcome = guard.set(change)?;
            guard.outcomes.push((change.clone(), outcome));
        }
        Ok(guard)
    }
}

impl AppliedGuard {
    fn set(&mut self, change: &Change) -> Result<Outcome, JournalError> {
        let Change { setting, after, .. } = change;
        // Not what the report had: that may be long ago.
        let old = match setting.read(&self.roots, &self.interface) {
            Ok(old) => old,
            Err(error) => return Ok(Outcome::Refused(error)),
        };
        let journal = self.journal.as_mut().expect("taken by `drop` only");
        journal.record(&setting.to_string(), &old)?;
        if let Err(error) = setting.write(&self.roots, &self.interface, after) {
            journal.forget(&setting.to_string())?;
            return Ok(Outcome::Refused(error));
        }
        self.changed.push((*setting, old));
        Ok(match setting.read(&self.roots, &self.interface) {
            Ok(found) if setting.same(&found, after) => Outcome::Set,
            Ok(found) => Outcome::Other(found),
            Err(error) => Outcome::Other(error.to_string()),
        })
    }

    /// How many settings hold that did not before.
    pub fn changed_len(&self) -> usize {
        self.changed.len()
    }
}

impl Drop for AppliedGuard {
    fn drop(&mut self) {
        let mut all_back = true;
        for (setting, old) in self.changed.drain(..).rev() {
            match setting.write(&self.roots, &self.interface, &old) {
                Ok(()) => {}
                // The interface went away first, and its settings with it.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    all_back = false;
                    log::warn!("cannot put back {setting} = {old}: {error}");
                }
            }
        }
        // With the record left, the next start tries again.
        if let Some(journal) = self.journal.take().filter(|_| all_back)
            && let Err(error) = journal.finish()
        {
            log::warn!("{error}");
        }
    }
}

/// Puts back what a process that was killed has left set on this interface.
///
/// # Errors
/// [`JournalError`]: it may not (EPERM), or a living process has the interface; the record stays.
pub fn recover(roots: &Roots, interface: &str, scope: &Scope) -> Result<Recovery, JournalError> {
    recover_journal(KIND, scope, |key, old| {
        let setting: Setting = key.parse()?;
        if !setting.accepts(old) {
            let problem = format!("{old:?} is no value of {setting}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        setting.write(roots, interface, old)
    })
}

/// Whether a file is not there any more: its interface, or its interrupt.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
