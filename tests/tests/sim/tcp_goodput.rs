//! A table of goodput: loss, buffer, controller and round-trip time, beside what the ideal model makes of the same. It is
//! kept in `tests/snapshots/goodput.txt`, so that a change of the engine shows as a change of figures that somebody has to
//! look at. `UPDATE=1 cargo test --release -p wirestack-tests --test sim goodput` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use smoltcp::time::Duration;
use wirestack::tcp::congestion::Algorithm;
use wirestack_tests::ideal::{Control, Model};
use wirestack_tests::sim::NicConfig;

use crate::tcp_support::*;

const HEAD: &str = "\
# Goodput in MB/s: 10 Gbit/s, data lost by chance, ACKs not, every segment acknowledged; 20 s or 60 MB, whatever is less,
# the mean of two seeds. Beside it the ideal model with the same buffer, and the ratio; of BBR the model is one that is
# held back by its buffer alone.
#
# RTT     loss   buffer  controller   MB/s    model  ratio
";

struct Row {
    rtt_millis: u64,
    loss: f64,
    buffer_kib: u32,
    congestion: Algorithm,
}

impl Row {
    fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for rtt_millis in [10, 50] {
            for loss in [0.0, 0.001, 0.01, 0.03, 0.05] {
                for buffer_kib in [256, 4096] {
                    for congestion in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
                        rows.push(Self { rtt_millis, loss, buffer_kib, congestion });
                    }
                }
            }
        }
        rows
    }

    /// Rows that are soon done without optimization too.
    fn is_short(&self) -> bool {
        self.loss >= 0.05 && self.rtt_millis >= 50 && self.congestion != Algorithm::Bbr
    }

    fn line(&self) -> String {
        let rtt = Duration::from_millis(self.rtt_millis);
        let bounds = Bounds { time: Duration::from_secs(20), bytes: 60_000_000 };
        let ways = path(10_000_000_000, rtt, self.loss);
        let options = options(self.congestion, self.buffer_kib * 1024);
        let got = goodput("goodput", 2, ways, [NicConfig::DEFAULT; 2], options, bounds);
        let control = match self.congestion {
            Algorithm::Cubic => Control::Cubic,
            Algorithm::Reno => Control::Reno,
            Algorithm::Bbr => Control::Window,
        };
        let model = Model {
            rtt_micros: self.rtt_millis * 1_000,
            loss: self.loss,
            window_bytes: u64::from(self.buffer_kib) * 1024,
            control,
            ..Model::default()
        };
        // As long as ours, so that both have the same ramp.
        let ideal = if self.loss == 0.0 {
            bounds.bytes as f64 / model.transfer(bounds.bytes) / 1e6
        } else {
            model.goodput(20.0, 2)
        };
        let name = format!("{:?}", self.congestion);
        format!(
            "{:3} ms {:6.1} % {:5} KiB  {name:10} {got:6.2} {ideal:8.2} {:6.2}",
            self.rtt_millis,
            self.loss * 100.0,
            self.buffer_kib,
            got / ideal
        )
    }
}

#[test]
fn goodput_is_what_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots/goodput.txt");
    let wants_update = std::env::var_os("UPDATE").is_some();
    assert!(IS_FAST || !wants_update, "only --release measures all rows");
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = HEAD.to_owned();
    let mut different = String::new();
    for row in Row::all() {
        if !IS_FAST && !row.is_short() {
            continue;
        }
        let line = row.line();
        if !reviewed.lines().any(|known| known == line) {
            let _ = writeln!(different, "{line}");
        }
        let _ = writeln!(text, "{line}");
    }
    if wants_update {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for it");
        std::fs::write(&path, text).expect("the file is written");
        return;
    }
    assert!(
        different.is_empty(),
        "these rows are others than in {}; if that is right, again with UPDATE=1 --release:\n{different}",
        path.display()
    );
}
