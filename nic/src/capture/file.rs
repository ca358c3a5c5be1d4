//! Capture files at full speed: frames are gathered in buffers, one for each thread, and a buffer is
//! written with one system call. Files are pcapng or pcap, and may rotate.
//!
//! ```text
//!   thread 0   FrameBuffer ─┐  whole blocks only
//!   thread 1   FrameBuffer ─┼──▶ CaptureFile ──▶ x_00001.pcapng, x_00002.pcapng …
//! ```
//!
//! What is on the disk is readable at any time. A buffer holds whole blocks; if the disk takes only a
//! part of it, the file is cut back to the last whole block, and nothing more is written.
//!
//! Frames of several buffers are in the file in the order in which the buffers were written, so their
//! times are in order within a buffer and not in the file; `reordercap` sorts a file.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use smoltcp::time::{Duration, Instant};

use super::pcapng::{self, InterfaceId, InterfaceStatistics, PcapngInterface, TimeUnit};
use super::{Direction, pcap};

/// A capture file, or a row of them. Dropped without [`finish`](Self::finish) it is readable all the
/// same, and has no statistics at its end.
#[derive(Debug)]
pub struct CaptureFile {
    format: FileFormat,
    snap_len: u32,
    /// What every file begins with.
    head: Vec<u8>,
    path: PathBuf,
    rotation: Rotation,
    current: OpenFile,
    /// Files that were made and not removed, the current one last.
    paths: VecDeque<PathBuf>,
    /// Number of the current file in its row, from 1.
    number: u32,
    totals: FileTotals,
    has_failed: bool,
}

/// How a capture file is written.
#[derive(Debug, Clone, Copy)]
pub struct CaptureFileConfig<'a> {
    /// Where. `.pcap` and `.cap` at its end mean pcap, anything else pcapng. With a rotation, a number
    /// is put in front of the ending: `x.pcapng` becomes `x_00001.pcapng`, `x_00002.pcapng` and so on,
    /// as dumpcap does it. Files of these names are overwritten.
    pub path: &'a Path,
    /// What the file says about the interface, and the bytes kept of each frame.
    pub interface: PcapngInterface<'a>,
    /// When the next file is begun.
    pub rotation: Rotation,
}

/// When the next file is begun. The default is never: one file, of exactly the name that was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file at most; a file has one frame at least.
    pub bytes_max: Option<NonZeroU64>,
    /// How long a file is written to at most, once it has a frame.
    pub age_max: Option<Duration>,
    /// Files that are kept: the oldest of this capture is removed when there would be more.
    pub files_max: Option<NonZeroU32>,
}

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Classic pcap with nanoseconds: [`pcap`].
    Pcap,
    /// [`pcapng`], with nanoseconds, direction and statistics.
    Pcapng,
}

/// What has become of the frames that were written to a [`CaptureFile`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Frames that are in a file, or were in one that the rotation has removed.
    pub frames: u64,
    /// Bytes of all files, heads included.
    pub bytes: u64,
    /// Frames that are in no file, because writing has failed.
    pub frames_lost: u64,
    /// Files that were begun.
    pub files: u32,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// Whole blocks, and nothing else.
    len: u64,
    /// A pipe or a device has no length that could be cut.
    is_regular: bool,
    has_frames: bool,
    began: Instant,
}

/// Frames on their way to a [`CaptureFile`]. Its memory is taken once, so adding a frame does not
/// allocate.
#[derive(Debug)]
pub struct FrameBuffer {
    format: FileFormat,
    snap_len: u32,
    bytes: Vec<u8>,
    frames: u64,
}

impl FrameBuffer {
    /// Adds a frame, of which at most the snap length is kept; `nanos` after 1 January 1970, UTC. Once
    /// [`is_full`](Self::is_full) says so, the buffer is to be written.
    #[inline]
    pub fn push(&mut self, nanos: u64, direction: Direction, frame: &[u8]) {
        let Self { format, snap_len, bytes, frames } = self;
        match format {
            FileFormat::Pcap => pcap::put_frame(bytes, nanos, *snap_len, frame),
            FileFormat::Pcapng => {
                pcapng::put_frame(bytes, InterfaceId::FIRST, nanos, *snap_len, direction, frame);
            }
        }
        *frames += 1;
    }

    /// Whether it is time to write it: more frames would need more memory.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BUFFER_BYTES
    }

    /// Frames in it.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

impl CaptureFile {
    /// Makes the file, or the first of the row, and writes its head, so that a place that cannot be
    /// written to is told at once.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(config: CaptureFileConfig<'_>, now: Instant) -> io::Result<Self> {
        let CaptureFileConfig { path, interface, rotation } = config;
        let format = FileFormat::of_path(path);
        let head = format.head(&interface);
        let number = 1;
        let first = if rotation.is_on() { numbered(path, number) } else { path.to_owned() };
        let current = OpenFile::create(&first, &head, now)?;
        Ok(Self {
            format,
            snap_len: pcapng::effective_snap_len(interface.snap_len),
            totals: FileTotals { bytes: current.len, files: 1, ..FileTotals::default() },
            head,
            path: path.to_owned(),
            rotation,
            current,
            paths: VecDeque::from([first]),
            number,
            has_failed: false,
        })
    }

    /// An empty buffer for frames of this file.
    pub fn buffer(&self) -> FrameBuffer {
        let bytes = Vec::with_capacity(BUFFER_BYTES + BLOCK_BYTES_MAX);
        FrameBuffer { format: self.format, snap_len: self.snap_len, bytes, frames: 0 }
    }

    /// Writes the frames of a buffer of this file, and empties it.
    ///
    /// # Errors
    /// What the file system says: once. The files are whole then, with all frames in them that there was
    /// room for. What is written later is counted as lost.
    pub fn write(&mut self, buffer: &mut FrameBuffer, now: Instant) -> io::Result<()> {
        let before = self.totals.frames;
        let result = match buffer.bytes.is_empty() || self.has_failed {
            true => Ok(()),
            false => self.write_blocks(&buffer.bytes, buffer.frames, now),
        };
        self.has_failed |= result.is_err();
        self.totals.frames_lost += buffer.frames - (self.totals.frames - before);
        buffer.bytes.clear();
        buffer.frames = 0;
        result
    }

    /// Begins the next file if the current one is old enough: [`write`](Self::write) does it too, but is
    /// not called while there are no frames.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn rotate_if_due(&mut self, now: Instant) -> io::Result<()> {
        if self.has_failed || !self.is_old(now) {
            return Ok(());
        }
        let result = self.rotate(now);
        self.has_failed |= result.is_err();
        result
    }

    /// Ends the capture: writes the statistics, where the format has room for them, and closes the file.
    ///
    /// # Errors
    /// What the file system says; the file is readable, and lacks the statistics. An error that
    /// [`write`](Self::write) has told is not told again.
    pub fn finish(mut self, statistics: &InterfaceStatistics) -> io::Result<FileTotals> {
        if self.format == FileFormat::Pcapng && !self.has_failed {
            let mut block = Vec::new();
            pcapng::put_statistics(&mut block, InterfaceId::FIRST, TimeUnit::Nanos, statistics);
            self.append(&block, 0)?;
        }
        Ok(self.totals)
    }

    /// What has become of the frames so far.
    pub fn totals(&self) -> FileTotals {
        self.totals
    }

    /// The format, chosen by the name.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// The files that exist, the current one last.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    fn write_blocks(&mut self, mut bytes: &[u8], mut frames: u64, now: Instant) -> io::Result<()> {
        if self.is_old(now) {
            self.rotate(now)?;
        }
        while let Some(room) = self.room().filter(|&room| room < bytes.len()) {
            let (mut len, mut count) = self.format.whole_blocks(bytes, room);
            if len == 0 && !self.current.has_frames {
                // A file with nothing in it has room for one frame, however large.
                (len, count) = (self.format.block_len(bytes).unwrap_or(bytes.len()), 1);
            }
            let (part, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            self.append(part, count)?;
            (bytes, frames) = (rest, frames.saturating_sub(count));
            if bytes.is_empty() {
                return Ok(());
            }
            self.rotate(now)?;
        }
        self.append(bytes, frames)
    }

    /// Appends whole blocks with this many frames in them, or as many of them as there is room for.
    fn append(&mut self, bytes: &[u8], frames: u64) -> io::Result<()> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.current.file.write(rest) {
                Ok(0) => return self.cut_back(bytes, taken, io::ErrorKind::WriteZero.into()),
                Ok(len) => taken += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.cut_back(bytes, taken, error),
            }
        }
        self.count(bytes.len(), frames);
        Ok(())
    }

    /// Takes what is left of a block off the end of the file, of which the first `taken` of `bytes` are
    /// the last, so that it ends with a whole one.
    fn cut_back(&mut self, bytes: &[u8], taken: usize, error: io::Error) -> io::Result<()> {
        let (len, frames) = self.format.whole_blocks(bytes, taken);
        self.count(len, frames);
        if len < taken
            && self.current.is_regular
            && let Err(error) = self.current.file.set_len(self.current.len)
        {
            log::warn!("the capture file ends with a part of a block, which cannot be cut off: {error}");
        }
        Err(error)
    }

    fn count(&mut self, bytes: usize, frames: u64) {
        self.current.len += bytes as u64;
        self.current.has_frames |= frames > 0;
        self.totals.bytes += bytes as u64;
        self.totals.frames += frames;
    }

    /// Bytes that still go into the current file; `None`: no limit.
    fn room(&self) -> Option<usize> {
        let left = self.rotation.bytes_max?.get().saturating_sub(self.current.len);
        Some(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn is_old(&self, now: Instant) -> bool {
        let age_max = self.rotation.age_max;
        self.current.has_frames && age_max.is_some_and(|age_max| now >= self.current.began + age_max)
    }

    /// Begins the next file, and removes the oldest if there are too many.
    fn rotate(&mut self, now: Instant) -> io::Result<()> {
        let number = self.number.saturating_add(1);
        let path = numbered(&self.path, number);
        // Before the new one is made, so that a disk that is just large enough stays so.
        while self.rotation.files_max.is_some_and(|max| self.paths.len() >= max.get() as usize) {
            let Some(oldest) = self.paths.pop_front() else { break };
            if let Err(error) = fs::remove_file(&oldest) {
                log::warn!("{}: cannot be removed: {error}", oldest.display());
            }
        }
        self.current = OpenFile::create(&path, &self.head, now)?;
        self.number = number;
        self.paths.push_back(path);
        self.totals.files += 1;
        self.totals.bytes += self.current.len;
        Ok(())
    }
}

impl OpenFile {
    fn create(path: &Path, head: &[u8], now: Instant) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let is_regular = file.metadata()?.is_file();
        if let Err(error) = file.write_all(head) {
            // Half a head is readable by nobody.
            if is_regular {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        Ok(Self { file, len: head.len() as u64, is_regular, has_frames: false, began: now })
    }
}

impl Rotation {
    /// Whether there can be a second file.
    pub fn is_on(&self) -> bool {
        self.bytes_max.is_some() || self.age_max.is_some()
    }
}

impl FileFormat {
    /// The format that a name asks for.
    pub fn of_path(path: &Path) -> Self {
        let is_pcap =
            |ending: &std::ffi::OsStr| ["pcap", "cap"].iter().any(|known| ending.eq_ignore_ascii_case(known));
        if path.extension().is_some_and(is_pcap) { Self::Pcap } else { Self::Pcapng }
    }

    fn head(self, interface: &PcapngInterface<'_>) -> Vec<u8> {
        let mut head = Vec::new();
        match self {
            Self::Pcap => pcap::put_header(&mut head, interface.medium, interface.snap_len),
            Self::Pcapng => {
                pcapng::put_section(&mut head);
                pcapng::put_interface(&mut head, interface, TimeUnit::Nanos);
            }
        }
        head
    }

    /// Bytes of the block that begins here; `None` if its length is not among the bytes.
    fn block_len(self, bytes: &[u8]) -> Option<usize> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(word)).ok()
        };
        match self {
            Self::Pcap => Some(pcap::RECORD_HEAD_LEN + word(8)?),
            Self::Pcapng => word(4),
        }
    }

    /// Bytes of the blocks that are whole within the first `limit` bytes, and the frames in them.
    fn whole_blocks(self, bytes: &[u8], limit: usize) -> (usize, u64) {
        let (mut len, mut frames) = (0, 0);
        while let Some(rest) = bytes.get(len..).filter(|rest| !rest.is_empty()) {
            // Blocks are ours, and not empty; should one be, the walk ends.
            let Some(block_len) = self.block_len(rest).filter(|&block_len| block_len > 0) else { break };
            if len + block_len > limit {
                break;
            }
            len += block_len;
            frames += u64::from(self == Self::Pcap || rest.starts_with(&PACKET_BLOCK));
        }
        (len, frames)
    }
}

/// The name of a file in a row: its number in front of the ending.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("_{number:05}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// Bytes at which a buffer is written: few system calls, and little that is lost when the process is
/// killed.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes of the largest block: a frame, and less than 64 bytes around it.
const BLOCK_BYTES_MAX: usize = pcapng::SNAP_LEN_MAX as usize + 64;
const PACKET_BLOCK: [u8; 4] = pcapng::ENHANCED_PACKET.to_le_bytes();

#[cfg(test)]
mod tests;
