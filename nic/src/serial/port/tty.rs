//! A serial port of this machine.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, Group};
use rustix::termios::{ControlModes, OptionalActions, Termios, ioctl_tiocexcl, tcgetattr, tcsetattr};
use serial2::{SerialPort, Settings};

use super::{Opening, Port};
use crate::serial::spec::FlowControl;
use crate::sys;

/// A serial port, 8 data bits, no parity, one stop bit. Its settings are put back when it is closed.
#[derive(Debug)]
pub struct Tty {
    path: PathBuf,
    baud: u32,
    flow: FlowControl,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    port: SerialPort,
    /// As they were.
    settings: Termios,
}

impl Tty {
    /// A port that is not open yet.
    pub fn new(path: &Path, baud: u32, flow: FlowControl) -> Self {
        Self { path: path.to_owned(), baud, flow, open: None }
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.open.as_ref().map(|open| open.port.as_fd()).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Opens it and saves how it was set.
    fn begin(&self) -> io::Result<Open> {
        let same = |settings: Settings| -> io::Result<Settings> { Ok(settings) };
        let port = SerialPort::open(&self.path, same).map_err(|error| self.refused(error))?;
        let settings = tcgetattr(&port).map_err(|error| self.refused(error.into()))?;
        // Two programs at one line would each get half of what comes. (The superuser is not held back by it.)
        ioctl_tiocexcl(&port)?;
        Ok(Open { port, settings })
    }

    fn set(&self, port: &mut SerialPort) -> io::Result<()> {
        let flow = match self.flow {
            FlowControl::None => serial2::FlowControl::None,
            FlowControl::RtsCts => serial2::FlowControl::RtsCts,
            FlowControl::XonXoff => serial2::FlowControl::XonXoff,
        };
        let mut settings = port.get_configuration()?;
        settings.set_raw();
        settings.set_flow_control(flow);
        port.set_configuration(&settings)
            .map_err(|error| self.said(&error, format_args!("flow={} is not to be had", self.flow)))?;
        let baud = self.baud;
        let set = settings.set_baud_rate(baud).and_then(|()| port.set_configuration(&settings));
        set.map_err(|error| {
            let hint = "usual rates are 9600, 19200, 38400, 57600, 115200, 230400, 460800 and 921600";
            self.said(&error, format_args!("it does not do {baud} baud; {hint}"))
        })?;
        // Nobody waits for a modem to find a carrier.
        let mut termios = tcgetattr(&*port)?;
        termios.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        tcsetattr(&*port, OptionalActions::Now, &termios)?;
        port.discard_buffers()
    }

    fn said(&self, error: &io::Error, what: std::fmt::Arguments<'_>) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {what} ({error})", self.path.display()))
    }

    /// Why it was not opened, and what helps.
    fn refused(&self, error: io::Error) -> io::Error {
        let path = self.path.display();
        let text = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => match available().as_slice() {
                [] => format!("{path}: there is no such port, and no serial port at all"),
                ports => format!("{path}: there is no such port; there are {}", ports.join(", ")),
            },
            Some(Errno::EACCES | Errno::EPERM) => match group_of(&self.path) {
                Some(group) => format!(
                    "{path}: no permission; it is for members of the group {group}: `sudo usermod -aG {group} $USER` and log \
                     in again"
                ),
                None => format!("{path}: no permission"),
            },
            Some(Errno::EBUSY) => format!("{path}: another program has it"),
            Some(Errno::ENOTTY | Errno::EINVAL) => format!("{path} is no serial port"),
            _ => format!("{path}: {error}"),
        };
        io::Error::new(error.kind(), text)
    }
}

/// The serial ports of this machine that are there.
fn available() -> Vec<String> {
    let ports = SerialPort::available_ports().unwrap_or_default();
    ports.iter().take(PORTS_MAX).map(|path| path.display().to_string()).collect()
}

/// The group that may read and write a port.
fn group_of(path: &Path) -> Option<String> {
    let data = std::fs::metadata(path).ok()?;
    // The superuser's own group is no group that one joins.
    let may = data.mode() & 0o060 == 0o060 && data.gid() != 0;
    let gid = Gid::from_raw(data.gid());
    may.then(|| match Group::from_gid(gid) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    })
}

impl Port for Tty {
    fn open(&mut self) -> io::Result<Opening> {
        let mut open = self.begin()?;
        let set = self.set(&mut open.port);
        // What was set in part is put back by closing.
        self.open = Some(open);
        if set.is_err() {
            self.close();
        }
        set.map(|()| Opening::Done)
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Of a port that was pulled out, nothing can be set.
        let _ = open.port.discard_output_buffer();
        let _ = tcsetattr(&open.port, OptionalActions::Now, &open.settings);
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(self.fd()?, room)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.fd()?, bytes)?)
    }

    fn unsent(&self) -> Option<usize> {
        sys::tty::unsent(self.fd().ok()?).ok()
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.fd().ok(), self.fd().ok()]
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ports that a message lists.
const PORTS_MAX: usize = 16;
