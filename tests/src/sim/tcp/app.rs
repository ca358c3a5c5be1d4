//! An application with listeners and connections. It looks at a connection only when an event tells it to, or its
//! own plan: an event that is lost is a connection that stands still.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use wirestack::shard::{Shard, SocketId, TcpConnect, TcpListen};
use wirestack::tcp::{ConnectError, Failure, TcpOptions};

use super::flow::{Flow, Plan, Step};
use super::streams::Side;
use crate::sim::{App, Context};

/// Connections to be begun.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// The peer.
    pub to: SocketAddr,
    /// From where.
    pub from: Option<SocketAddr>,
    /// Manners.
    pub options: TcpOptions,
    /// What is done with each.
    pub plan: Plan,
    /// How many.
    pub count: usize,
    /// How many at a time.
    pub at_a_time: usize,
    /// When the first one begins.
    pub after: Duration,
    /// Time between the beginnings of two.
    pub every: Duration,
}

impl Dial {
    /// One connection, at once.
    pub fn new(to: SocketAddr, options: TcpOptions, plan: Plan) -> Self {
        Self {
            to,
            from: None,
            options,
            plan,
            count: 1,
            at_a_time: 1,
            after: Duration::ZERO,
            every: Duration::ZERO,
        }
    }

    /// So many connections, and so many of them at a time.
    #[must_use]
    pub fn times(self, count: usize, at_a_time: usize) -> Self {
        Self { count, at_a_time, ..self }
    }
}

/// A listener.
#[derive(Debug, Clone, Copy)]
pub struct Serve {
    /// Where.
    pub listen: TcpListen,
    /// What is done with each connection.
    pub plan: Plan,
}

impl Serve {
    /// Listens at an address with a backlog of 128.
    pub fn new(local: SocketAddr, options: TcpOptions, plan: Plan) -> Self {
        let listen = TcpListen { local, v6_only: false, backlog: 128, resets_on_overflow: false, options };
        Self { listen, plan }
    }
}

/// What has become of a connection.
#[derive(Debug, Clone, Copy)]
pub struct FlowReport {
    /// Its socket.
    pub id: SocketId,
    /// When it was begun or accepted.
    pub began: Instant,
    /// When it was over.
    pub ended: Option<Instant>,
    /// When the last byte came.
    pub last_received: Instant,
    /// Bytes that were taken.
    pub sent: u64,
    /// Bytes that came.
    pub received: u64,
    /// How it ended.
    pub outcome: Option<Result<(), Failure>>,
}

/// What has become of all connections of an application, in the order in which they began.
#[derive(Debug, Default)]
pub struct Report {
    /// Connections.
    pub flows: Vec<FlowReport>,
    /// Those that are over.
    pub over: usize,
    /// Attempts that the shard refused at once.
    pub refused: Vec<ConnectError>,
    /// Connections that are still to be begun.
    pub to_begin: usize,
}

impl Report {
    /// Whether everything was begun and is over.
    pub fn is_done(&self) -> bool {
        self.to_begin == 0 && self.over == self.flows.len()
    }

    /// Bytes that came, of all connections.
    pub fn received(&self) -> u64 {
        self.flows.iter().map(|flow| flow.received).sum()
    }

    /// Failures, in the order in which connections began.
    pub fn failures(&self) -> Vec<Failure> {
        self.flows.iter().filter_map(|flow| flow.outcome?.err()).collect()
    }
}

/// A report that a test and the application share.
pub type SharedReport = Rc<RefCell<Report>>;

struct Dialing {
    dial: Dial,
    begun: usize,
    running: usize,
    next: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct TcpApp {
    serves: Vec<Serve>,
    dials: Vec<Dialing>,
    listeners: BTreeMap<SocketId, Plan>,
    /// With the number in the report, and of the dial that has begun it.
    flows: BTreeMap<SocketId, (Flow, usize, Option<usize>)>,
    timers: BTreeSet<(Instant, SocketId)>,
    report: SharedReport,
    has_begun: bool,
}

impl TcpApp {
    /// An application that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens.
    #[must_use]
    pub fn serve(mut self, serve: Serve) -> Self {
        self.serves.push(serve);
        self
    }

    /// Connects.
    #[must_use]
    pub fn dial(mut self, dial: Dial) -> Self {
        self.report.borrow_mut().to_begin += dial.count;
        self.dials.push(Dialing { dial, begun: 0, running: 0, next: None });
        self
    }

    /// The application as the simulator wants it, and where to look what becomes of it.
    pub fn start(mut self) -> (App, SharedReport) {
        let report = self.report.clone();
        (Box::new(move |shard, context| self.turn(shard, context)), report)
    }

    fn turn(&mut self, shard: &mut Shard, context: &mut Context<'_>) -> Option<Instant> {
        if !self.has_begun {
            self.has_begun = true;
            for serve in &self.serves {
                let id = shard.tcp_listen(serve.listen).expect("the port is free");
                self.listeners.insert(id, serve.plan);
            }
            for dialing in &mut self.dials {
                dialing.next = Some(context.now + dialing.dial.after);
            }
        }
        while let Some(event) = shard.next_event() {
            if let Some(&plan) = self.listeners.get(&event.socket) {
                self.accept(shard, context, event.socket, plan);
            }
            self.drive(shard, context, event.socket);
        }
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= context.now) {
            self.timers.remove(&(at, id));
            self.drive(shard, context, id);
        }
        let mut wakes = self.timers.first().map(|(at, _)| *at);
        for index in 0..self.dials.len() {
            let next = self.connect(shard, context, index);
            wakes = [wakes, next].into_iter().flatten().min();
        }
        // What was begun may have been written to, and what was answered at once wakes up for it.
        [wakes, self.timers.first().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    fn accept(&mut self, shard: &mut Shard, context: &mut Context<'_>, listener: SocketId, plan: Plan) {
        while let Some(id) = shard.tcp_accept(listener) {
            let Some((local, Some(remote))) = shard.tcp_ends(id) else {
                panic!("a connection without ends was accepted")
            };
            let entry = context.ledger.tcp.accept(local, remote);
            let flow = Flow::new(id, entry, Side::Server, plan, context.now);
            self.add(flow, None, context.now);
            self.drive(shard, context, id);
        }
    }

    fn add(&mut self, flow: Flow, dial: Option<usize>, now: Instant) {
        let mut report = self.report.borrow_mut();
        let number = report.flows.len();
        report.flows.push(FlowReport {
            id: flow.id,
            began: now,
            ended: None,
            last_received: now,
            sent: 0,
            received: 0,
            outcome: None,
        });
        self.flows.insert(flow.id, (flow, number, dial));
    }

    /// Begins what is due, and returns when the next is.
    fn connect(&mut self, shard: &mut Shard, context: &mut Context<'_>, index: usize) -> Option<Instant> {
        loop {
            let dialing = &mut self.dials[index];
            let dial = dialing.dial;
            let may_begin = dialing.begun < dial.count && dialing.running < dial.at_a_time;
            let due = dialing.next.filter(|_| may_begin)?;
            if due > context.now {
                return Some(due);
            }
            dialing.begun += 1;
            dialing.next = Some(context.now + dial.every);
            self.report.borrow_mut().to_begin -= 1;
            let connect = TcpConnect { remote: dial.to, local: dial.from, options: dial.options };
            match shard.tcp_connect(connect) {
                Ok(id) => {
                    self.dials[index].running += 1;
                    let (local, _) = shard.tcp_ends(id).expect("a connection has ends");
                    let entry = context.ledger.tcp.begin(local, dial.to);
                    let flow = Flow::new(id, entry, Side::Client, dial.plan, context.now);
                    self.add(flow, Some(index), context.now);
                    self.drive(shard, context, id);
                }
                Err(error) => self.report.borrow_mut().refused.push(error),
            }
        }
    }

    fn drive(&mut self, shard: &mut Shard, context: &mut Context<'_>, id: SocketId) {
        let Some((flow, number, dial)) = self.flows.get_mut(&id) else { return };
        let before = flow.received;
        let step = flow.drive(shard, context);
        let mut report = self.report.borrow_mut();
        let told = &mut report.flows[*number];
        if flow.received > before {
            told.last_received = context.now;
        }
        (told.sent, told.received) = (flow.sent, flow.received);
        match step {
            Step::Goes(None) => {}
            Step::Goes(Some(at)) => {
                self.timers.insert((at, id));
            }
            Step::Over(outcome) => {
                told.outcome = Some(outcome);
                told.ended = Some(context.now);
                report.over += 1;
                if let Some(dial) = *dial {
                    self.dials[dial].running -= 1;
                }
                self.flows.remove(&id);
            }
        }
    }
}

/// The connections of a shard that are not over, in words: for a test that waits in vain.
pub fn stuck(shard: &Shard, report: &SharedReport) -> String {
    let report = report.borrow();
    let open = report.flows.iter().filter(|flow| flow.outcome.is_none()).take(5);
    let told: Vec<String> = open
        .map(|flow| {
            let (info, ready) = (shard.tcp_info(flow.id), shard.tcp_readiness(flow.id));
            format!("{flow:?}\n  {ready:?}\n  {info:?}")
        })
        .collect();
    format!(
        "{} of {} over, {} to begin\n{}",
        report.over,
        report.flows.len(),
        report.to_begin,
        told.join("\n")
    )
}
