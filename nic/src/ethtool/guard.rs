//! Offloads that are switched for a while.

use std::io;
use std::os::fd::AsFd;

use super::{Control, Offload};
use crate::link::Interface;
use crate::restore::{self, Journal, JournalError, Recovery, Scope};

/// Kind of the records of this module.
const KIND: &str = "offload";

/// Switches offloads of an interface, and puts back what it changed when it is dropped.
///
/// It acts in the network namespace in which it was made, wherever it is used or dropped. If the
/// process is killed, a record of what to put back is left: the next guard on this interface does it
/// before it changes anything, or [`recover`]. There is one guard at a time on an interface that has
/// changed something.
#[derive(Debug)]
pub struct OffloadGuard {
    control: Control,
    name: String,
    namespace: u64,
    /// From the first change on.
    journal: Option<Journal>,
    /// What was changed, in order, with the value from before.
    changed: Vec<(Offload, bool)>,
}

impl OffloadGuard {
    /// A guard that has not changed anything yet.
    ///
    /// # Errors
    /// EINVAL (as [`io::ErrorKind::InvalidInput`]): no interface can have this name. EMFILE, ENFILE.
    pub fn new(interface: &str) -> io::Result<Self> {
        Ok(Self {
            control: Control::open(interface)?,
            name: interface.to_owned(),
            namespace: restore::namespace()?,
            journal: None,
            changed: Vec::new(),
        })
    }

    /// Switches one offload, and remembers it if it was not so already.
    ///
    /// # Errors
    /// As for [`set`](super::set); what was switched before stays so until the guard is dropped.
    /// [`io::ErrorKind::ResourceBusy`]: another guard, maybe of another process, has changed offloads of
    /// this interface. Errors of [`JournalError::File`]: nothing is changed without a record.
    pub fn set(&mut self, offload: Offload, on: bool) -> io::Result<()> {
        if self.journal.is_none() {
            // Else a value that a dead process has left would be taken for the one from before.
            let scope = self.scope()?;
            for line in recover_in(&self.control, &scope)?.lines() {
                log::warn!("{}: {line}", self.name);
            }
        }
        let before = self.control.is_on(offload)?;
        if before == on {
            return Ok(());
        }
        if self.journal.is_none() {
            self.journal = Some(Journal::open(KIND, &self.scope()?)?);
        }
        let journal = self.journal.as_mut().expect("opened above");
        journal.record(&offload.to_string(), word(before))?;
        if let Err(error) = self.control.set(offload, on) {
            // An earlier change of the same offload keeps its note.
            if !self.changed.iter().any(|(changed, _)| *changed == offload) {
                journal.forget(&offload.to_string())?;
            }
            return Err(error);
        }
        self.changed.push((offload, before));
        Ok(())
    }

    /// What was changed, with the values from before, in order.
    pub fn changed(&self) -> &[(Offload, bool)] {
        &self.changed
    }

    fn scope(&self) -> io::Result<Scope> {
        let index = Interface::ask(self.control.socket.as_fd(), &self.name)?.index;
        Ok(Scope::new(restore::folder()?, &self.name, self.namespace, index))
    }
}

impl Drop for OffloadGuard {
    fn drop(&mut self) {
        let mut all_back = true;
        // The last change first, so that what others depend on comes back after them; the kernel keeps
        // their wish until it can be granted.
        for (offload, before) in self.changed.drain(..).rev() {
            match self.control.set(offload, before) {
                Ok(()) => {}
                // The interface went away first, and its settings with it.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    all_back = false;
                    log::warn!("cannot put back {offload}: {error}");
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

/// Puts back the offloads that a process which was killed has left switched on this interface, of the
/// network namespace of the calling thread. The result says what it did, maybe nothing.
///
/// # Errors
/// [`JournalError::Denied`]: needs CAP_NET_ADMIN; the record stays. [`JournalError::File`]: no such
/// interface, or the record cannot be read.
pub fn recover(interface: &str) -> Result<Recovery, JournalError> {
    let failed = |source| JournalError::File { path: interface.into(), source };
    let scope = Scope::of_interface(interface).map_err(failed)?;
    recover_in(&Control::open(interface).map_err(failed)?, &scope)
}

fn recover_in(control: &Control, scope: &Scope) -> Result<Recovery, JournalError> {
    restore::recover(KIND, scope, |key, old| {
        let invalid = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
        let offload: Offload = key.parse().map_err(invalid)?;
        let on = match old {
            "on" => true,
            "off" => false,
            _ => return Err(invalid(format!("{old:?} is neither on nor off"))),
        };
        control.set(offload, on)
    })
}

const fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
