//! A stack and the tasks of a program on one thread: from its device to the ready line, until a signal, and an orderly
//! end. What `host` is with threads.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{Either, select};
use smoltcp::time::Duration;
use wirestack::api::Access;
use wirestack::local::{Runtime, Spawner, Stack};
use wirestack::nic::{LinkError, Nic, wait};

use crate::addresses::{Waiting, Wanted};
use crate::cli::{PrivilegeArgs, TcpArgs};
use crate::control::{Desk, Serving, Step};
use crate::error::AppError;
use crate::host::{self, ADDRESS_LOOK_INTERVAL, CLOSE_TIMEOUT, RunArgs};
use crate::policy;
use crate::privileges::{self, Threads};
use crate::report::{About, Gather, Report, Request};
use crate::serve::{Figures, Stop, one, print_error, tell_addresses};
use crate::setup::Prepared;

/// A stack that runs with the tasks of a program.
#[derive(Debug)]
pub struct LocalHost<N> {
    runtime: Runtime<N>,
    stop: Stop,
    wanted: Wanted,
    about: About,
    shape: Option<String>,
    privileges: PrivilegeArgs,
    desk: Option<Desk>,
    /// It is ended before the desk at which it asks.
    serving: Option<Serving>,
    published: Arc<Published>,
    /// Those that could be used when this was asked last.
    addresses: Vec<IpAddr>,
}

impl<N: Nic> LocalHost<N> {
    /// Puts a stack on the device. It runs in the other methods only.
    ///
    /// # Errors
    /// A limit that is out of its bounds; more shards than one. One line.
    pub fn open(
        nics: Vec<N>,
        prepared: Prepared<'_>,
        program: &str,
        tcp: &TcpArgs,
        run: &RunArgs,
    ) -> Result<Self, AppError> {
        let Prepared { net, stop, about: shape, control, name, keep, .. } = prepared;
        privileges::leave(&tcp.privileges, keep)?;
        let nic = one(nics)?;
        let about = About::new(program, name);
        let (desk, asker) = Desk::new(about.clone(), 0, nic.waker());
        let serving = control.map(|control| control.serve(move |request| asker.ask(request)));
        let serving = serving.transpose().map_err(AppError::running)?;
        let config = host::limits(net.shard, tcp, 1);
        let mut runtime = Runtime::new(nic, config).map_err(AppError::usage)?;
        runtime.set_patience(run.patience());
        runtime.stack().shards()[0].with(|hub| {
            net.wanted.conflicts.watch(hub.shard());
            policy::install(hub.shard(), tcp);
        });
        let privileges = tcp.privileges;
        let published = Arc::<Published>::default();
        published.is_asked.store(true, Ordering::Relaxed);
        Ok(Self {
            runtime,
            stop,
            wanted: net.wanted,
            about,
            shape,
            privileges,
            desk: Some(desk),
            serving,
            published,
            addresses: Vec::new(),
        })
    }

    /// The handle with which sockets are made.
    pub fn stack(&self) -> &Stack {
        self.runtime.stack()
    }

    /// Starts tasks.
    pub fn spawner(&self) -> &Spawner {
        self.runtime.spawner()
    }

    /// Tells the program to end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits until all addresses can be used. `None`: the program is to end.
    ///
    /// # Errors
    /// Somebody else has one, nobody gives one, the interface has gone. One line.
    pub fn wait_for_addresses(&mut self) -> Result<Option<Vec<IpAddr>>, AppError> {
        if let Some(shape) = &self.shape {
            print_error(format_args!("wirestack: {shape}"));
        }
        let (stack, stop) = (self.stack().clone(), self.stop.clone());
        let waiting = Waiting::begin(&self.wanted, wait::now());
        let found = async {
            while !stop.is_set() {
                let found = stack.shards()[0].with(|hub| waiting.look(hub.shard_ref(), wait::now()))?;
                if found.is_some() {
                    return Ok(found);
                }
                stack.sleep(ADDRESS_LOOK_INTERVAL.into()).await;
            }
            Ok(None)
        };
        let found = self.runtime.block_on(found).map_err(gone)??;
        privileges::confine_if_asked(&self.privileges, Threads::All)?;
        Ok(found)
    }

    /// Runs until the future is ready, or the program is to end (`None`).
    ///
    /// # Errors
    /// The interface has gone.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> Result<Option<T>, AppError> {
        let mut future = pin!(future);
        while !self.stop.is_set() {
            let stop = self.stop.clone();
            let either = async {
                match select(future.as_mut(), pin!(stop.ended())).await {
                    Either::Left((output, _)) => Some(output),
                    Either::Right(_) => None,
                }
            };
            if let Some(output) = self.slice(either)? {
                return Ok(output);
            }
        }
        Ok(None)
    }

    /// Runs until the future is ready, which looks itself whether the program is to end.
    ///
    /// # Errors
    /// The interface has gone.
    pub fn run_to_end<T>(&mut self, future: impl Future<Output = T>) -> Result<T, AppError> {
        let mut future = pin!(future);
        loop {
            if let Some(output) = self.slice(future.as_mut())? {
                return Ok(output);
            }
        }
    }

    /// Runs for a while: now and then somebody wants to know something that a task cannot tell.
    fn slice<T>(&mut self, future: impl Future<Output = T>) -> Result<Option<T>, AppError> {
        let stack = self.stack().clone();
        let slice = async {
            match select(pin!(future), pin!(stack.sleep(LOOK_INTERVAL))).await {
                Either::Left((output, _)) => Some(output),
                Either::Right(_) => None,
            }
        };
        let output = self.runtime.block_on(slice).map_err(gone)?;
        self.answer();
        let now = self.stack().addresses();
        if now != self.addresses {
            if !self.addresses.is_empty() {
                self.stack().shards()[0].with(|hub| tell_addresses(hub.shard_ref()));
            }
            self.addresses = now;
        }
        Ok(output)
    }

    /// Tells whoever asks about the program.
    fn answer(&mut self) {
        let shard = self.stack().shards()[0].clone();
        if self.published.is_asked.swap(false, Ordering::Relaxed) {
            let report = self.report(Request::default());
            *self.published.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
        }
        let Some(mut desk) = self.desk.take() else { return };
        for _ in 0..STEPS_MAX {
            let more = match shard.with(|hub| desk.step(hub.shard_ref())) {
                Step::Idle => false,
                Step::More => true,
                Step::Complete => {
                    let figures = self.figures();
                    shard.with(|hub| desk.answer(hub.shard_ref(), &figures))
                }
            };
            if !more {
                break;
            }
        }
        self.desk = Some(desk);
    }

    /// For a task that shows what the stack has counted: the latest report, which is made anew for who asks often.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// What was counted.
    pub fn figures(&mut self) -> Figures {
        let counters = self.runtime.nic().counters();
        self.stack().shards()[0].with(|hub| {
            let shard = hub.shard_ref();
            let accepted = shard.tcp_counters().accepted;
            Figures { program: vec![("accepted", accepted)], ..Figures::of_shard(shard, counters) }
        })
    }

    /// The report of the moment.
    fn report(&mut self, request: Request) -> Report {
        let figures = self.figures();
        let mut gather = Gather::new(0, request);
        self.stack().shards()[0].with(|hub| {
            while !gather.step(hub.shard_ref()) {}
            gather.finish(&self.about, hub.shard_ref(), &figures)
        })
    }

    /// Lets connections end in an orderly way for a moment. Returns what was counted.
    pub fn shutdown(mut self) -> Figures {
        self.serving = None;
        self.runtime.shutdown(CLOSE_TIMEOUT);
        self.figures()
    }
}

/// A report for tasks. It is a tenth of a second old, if somebody has asked before.
#[derive(Debug, Default)]
pub struct Published {
    is_asked: AtomicBool,
    report: Mutex<Report>,
}

impl Published {
    /// The latest one; the next one is on its way.
    pub fn report(&self) -> Report {
        self.is_asked.store(true, Ordering::Relaxed);
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn gone(error: LinkError) -> AppError {
    AppError::running(error)
}

/// How often it is looked whether somebody asks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Pieces of what is asked for that are done at once.
const STEPS_MAX: usize = 64;
