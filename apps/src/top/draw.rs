//! What is on the screen, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Block, Clear, Paragraph, Row as Cells, Sparkline, Table};

use super::once::{buffers, head, rates};
use super::rates::Row;
use super::view::View;
use super::words::{bits, bytes, millis};
use crate::report::Owner;

/// Draws everything, and notes how many rows there was room for.
pub(super) fn draw(view: &mut View, frame: &mut Frame<'_>) {
    let parts = [
        Constraint::Length(3),
        Constraint::Length(SPARKLINE_LINES),
        Constraint::Min(2),
        Constraint::Length(1),
    ];
    let [top, spark, table, bottom] = Layout::vertical(parts).areas(frame.area());
    view.page = usize::from(table.height.saturating_sub(1)).max(1);
    view.stay_within();
    frame.render_widget(Paragraph::new(header(view)), top);
    sparkline(view, frame, spark);
    connections(view, frame, table);
    frame.render_widget(Paragraph::new(footer(view)), bottom);
    if view.shows_help {
        help(frame);
    }
}

fn header(view: &View) -> String {
    let report = view.report();
    let half_open: u64 = report.listeners.iter().map(|listener| listener.half_open).sum();
    let waiting: u64 = report.listeners.iter().map(|listener| listener.waiting).sum();
    format!(
        "{}\n{}\n{} connections, {waiting} waiting, {half_open} half-open, buffers {}, {} retransmits, {} in \
         recovery",
        head(report),
        rates(&view.look),
        report.connections_len,
        buffers(report),
        view.look.counter("tcp_retransmits"),
        view.look.rows.iter().filter(|row| row.connection.recovery != "none").count(),
    )
}

fn sparkline(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let newest = view.history.len().saturating_sub(usize::from(area.width));
    let data: Vec<u64> = view.history.iter().skip(newest).copied().collect();
    let most = data.iter().copied().max().unwrap_or(0);
    let title = format!("in and out, at most {}", bits(most as f64));
    let style = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(
        Sparkline::default().data(data).max(most.max(1)).block(Block::new().title(title)),
        area,
    );
    frame.buffer_mut().set_style(Rect { height: area.height.min(1), ..area }, style);
}

fn connections(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let rows = view.rows();
    let shown = rows.iter().skip(view.first).take(view.page);
    let ends = |end: fn(&Row) -> String| {
        let longest = rows.iter().map(|row| end(row).len()).max().unwrap_or(0);
        Constraint::Length(longest.clamp(ENDS_WIDTH_MIN, ENDS_WIDTH_MAX) as u16)
    };
    let widths = [
        ends(|row| row.connection.remote.to_string()),
        ends(|row| row.connection.local.to_string()),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Min(11),
    ];
    let names = ["PEER", "LOCAL", "STATE", "IN", "OUT", "CWND", "RTT", "RETRANS", "LIMITED BY"];
    let heading = Cells::new(names).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(shown.map(|row| cells(row)), widths).header(heading), area);
}

fn cells(row: &Row) -> Cells<'static> {
    let connection = &row.connection;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), bits);
    let limited_by = match connection.owner {
        Owner::Application => connection.limited_by.clone(),
        Owner::Listener => "not accepted".to_owned(),
        Owner::Nobody => format!("{}, closed", connection.limited_by),
    };
    Cells::new([
        connection.remote.to_string(),
        connection.local.to_string(),
        connection.state.clone(),
        rate(row.bits_in),
        rate(row.bits_out),
        bytes(connection.cwnd_bytes),
        connection.srtt_us.map_or_else(|| "-".to_owned(), millis),
        connection.retransmits.to_string(),
        limited_by,
    ])
}

fn footer(view: &View) -> String {
    if view.is_filtering {
        return format!("/{}_  (Enter keeps it, Esc forgets it)", view.filter);
    }
    let rows = view.rows().len();
    let mut words = vec![format!("sort: {}", view.sort)];
    if rows > 0 {
        words.push(format!("rows {}-{} of {rows}", view.first + 1, (view.first + view.page).min(rows)));
    }
    if !view.filter.is_empty() {
        words.push(format!("filter: {}", view.filter));
    }
    if view.is_paused {
        words.push("PAUSED".to_owned());
    }
    words.extend(view.note.clone());
    words.push("h help, q quit".to_owned());
    words.join("  ")
}

fn help(frame: &mut Frame<'_>) {
    let lines = [
        "q, Ctrl-C       quit",
        "s               sort by the next key: rate, rtt, retransmits, cwnd, peer",
        "p, space        pause, go on",
        "arrows, PgUp…   scroll",
        "/               show only what has a text in it; Esc: all again",
        "h, ?            this",
        "",
        "IN, OUT         data per second, repetitions included",
        "RETRANS         frames sent again since the connection began",
        "LIMITED BY      what keeps us from sending more",
    ];
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as u16 + 2;
    let area = frame.area();
    let (width, height) = (width.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let middle = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, middle);
    frame.render_widget(
        Paragraph::new(lines.join("\n")).block(Block::bordered().title("wirestack top")),
        middle,
    );
}

/// Lines of the throughput, the title included.
const SPARKLINE_LINES: u16 = 4;
/// Columns of an address with its port, at least.
const ENDS_WIDTH_MIN: usize = 15;
/// At most: an address of IPv6 in brackets.
const ENDS_WIDTH_MAX: usize = 47;
