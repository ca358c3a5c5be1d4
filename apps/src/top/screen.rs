//! The terminal: taken, drawn on, and given back however it ends.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::TopArgs;
use super::draw::draw;
use super::view::{View, Wish};
use super::{ended, look};
use crate::control::AskError;
use crate::error::AppError;
use crate::report::{CONNECTIONS_MAX, Report, Sort};
use crate::serve::print_error;

/// Whether there is a terminal.
///
/// # Errors
/// There is none. Status 2.
pub(super) fn check() -> Result<(), AppError> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(AppError::usage(
        "top: stdin and stdout are no terminal; --once prints a table, --once --json an object",
    ))
}

/// The terminal while it is ours. A panic gives it back too: [`ratatui::try_init`] sees to that.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows until a key, a signal, or the end of the program that is watched.
pub(super) fn run(args: &TopArgs, path: PathBuf, first: Report) -> Result<(), AppError> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, is_over.clone()).map_err(AppError::running)?;
    }
    let sort = Arc::new(Mutex::new(args.sort));
    let looks = looks(path, Duration::from_secs_f64(args.interval), sort.clone())?;
    let last_words = ended(&first);
    let mut view = View::new(first, args.sort, args.count.unwrap_or(CONNECTIONS_MAX));
    let is_gone = {
        let mut screen = Screen(ratatui::try_init().map_err(AppError::running)?);
        watch(&mut screen, &mut view, &looks, &sort, &is_over)?
    };
    if is_gone {
        print_error(format_args!("wirestack: {last_words}"));
    }
    Ok(())
}

/// True: the program that is watched has ended.
fn watch(
    screen: &mut Screen,
    view: &mut View,
    looks: &Receiver<Result<Report, AskError>>,
    sort: &Mutex<Sort>,
    is_over: &AtomicBool,
) -> Result<bool, AppError> {
    while !is_over.load(Ordering::Relaxed) {
        screen.0.draw(|frame| draw(view, frame)).map_err(AppError::running)?;
        loop {
            match looks.try_recv() {
                Ok(Ok(report)) => view.take(report),
                Ok(Err(AskError::Gone)) | Err(TryRecvError::Disconnected) => return Ok(true),
                Ok(Err(error)) => view.note = Some(error.to_string()),
                Err(TryRecvError::Empty) => break,
            }
        }
        // A signal ends it with EINTR at the latest; what comes from the other thread waits so long at most.
        match event::poll(TICK) {
            Ok(false) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(AppError::running)?,
        };
        if let Event::Key(key) = event::read().map_err(AppError::running)?
            && key.kind != KeyEventKind::Release
            && view.press(key) == Wish::Quit
        {
            break;
        }
        *sort.lock().unwrap_or_else(PoisonError::into_inner) = view.sort;
    }
    Ok(false)
}

/// Asks once an interval, in a thread: a program that does not answer leaves the keys alone.
fn looks(
    path: PathBuf,
    interval: Duration,
    sort: Arc<Mutex<Sort>>,
) -> Result<Receiver<Result<Report, AskError>>, AppError> {
    let (sender, looks): (SyncSender<_>, _) = mpsc::sync_channel(1);
    let ask = move || {
        loop {
            std::thread::sleep(interval);
            let sort = *sort.lock().unwrap_or_else(PoisonError::into_inner);
            let report = look(&path, sort);
            let is_gone = matches!(report, Err(AskError::Gone));
            // Nobody looks any more.
            if sender.send(report).is_err() || is_gone {
                return;
            }
        }
    };
    std::thread::Builder::new().name("looks".into()).spawn(ask).map_err(AppError::running)?;
    Ok(looks)
}

/// How late a report may be shown, and a signal be seen.
const TICK: Duration = Duration::from_millis(100);
