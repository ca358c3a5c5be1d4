//! Where the loop of a program is asked about itself by other threads. Nobody asks: a look at a flag in each turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wirestack::nic::Waker;
use wirestack::shard::Shard;

use crate::report::{About, Gather, Report, Request};
use crate::serve::Figures;

/// A question, and where its answer goes.
type Question = (Request, SyncSender<Report>);

#[derive(Debug, Default)]
struct Shared {
    /// There is a question: what the loop looks at.
    is_asked: AtomicBool,
    /// At most one for each thread that asks, and [`QUESTIONS_MAX`].
    questions: Mutex<VecDeque<Question>>,
}

/// The end of those who ask.
#[derive(Debug, Clone)]
pub struct Asker {
    shared: Arc<Shared>,
    waker: Waker,
}

/// The end of the loop.
#[derive(Debug)]
pub struct Desk {
    shared: Arc<Shared>,
    about: About,
    /// Number of the shard.
    number: u32,
    under_way: Option<(Gather, SyncSender<Report>)>,
}

/// What a [`Desk::step`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nobody asks.
    Idle,
    /// There is more to look at.
    More,
    /// Everything was looked at: [`Desk::answer`] is to be called.
    Complete,
}

impl Desk {
    /// The desk of a loop that sleeps on the device of this waker, and of its shard, whose number is for people.
    pub fn new(about: About, number: u32, waker: Waker) -> (Self, Asker) {
        let shared = Arc::new(Shared::default());
        (Self { shared: shared.clone(), about, number, under_way: None }, Asker { shared, waker })
    }

    /// Does a bounded piece of what is asked for, if anything is. To be called in each turn.
    pub fn step(&mut self, shard: &Shard) -> Step {
        if self.under_way.is_none() {
            // Acquire: pairs with the Release of `ask`, behind which the question is in the queue.
            if !self.shared.is_asked.load(Ordering::Acquire) {
                return Step::Idle;
            }
            self.under_way = self.take();
        }
        match &mut self.under_way {
            None => Step::Idle,
            Some((gather, _)) => {
                if gather.step(shard) {
                    Step::Complete
                } else {
                    Step::More
                }
            }
        }
    }

    /// Answers, when a step was the last of a question. True: there is another one.
    pub fn answer(&mut self, shard: &Shard, figures: &Figures) -> bool {
        if let Some((gather, answer)) = self.under_way.take() {
            // Who has not waited is not there any more.
            let _ = answer.try_send(gather.finish(&self.about, shard, figures));
        }
        self.shared.is_asked.load(Ordering::Acquire)
    }

    /// A step, and the answer if it was the last. True: there is more to do, and the loop is to come again at once.
    pub fn turn(&mut self, shard: &Shard, figures: impl FnOnce() -> Figures) -> bool {
        match self.step(shard) {
            Step::Idle => false,
            Step::More => true,
            Step::Complete => self.answer(shard, &figures()),
        }
    }

    fn take(&self) -> Option<(Gather, SyncSender<Report>)> {
        let mut questions = self.shared.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let next = questions.pop_front();
        // Under the lock, so that nobody's question comes between.
        self.shared.is_asked.store(!questions.is_empty(), Ordering::Release);
        next.map(|(request, answer)| (Gather::new(self.number, request), answer))
    }
}

impl Asker {
    /// Asks, and waits for the answer. `None`: it has not come in time, or too many ask.
    pub fn ask(&self, request: Request) -> Option<Report> {
        self.post(request)?.recv_timeout(ANSWER_TIMEOUT).ok()
    }

    /// Asks, and does not wait.
    fn post(&self, request: Request) -> Option<Receiver<Report>> {
        let (sender, answer) = mpsc::sync_channel(1);
        {
            let mut questions = self.shared.questions.lock().unwrap_or_else(PoisonError::into_inner);
            if questions.len() >= QUESTIONS_MAX {
                return None;
            }
            questions.push_back((request, sender));
            self.shared.is_asked.store(true, Ordering::Release);
        }
        self.waker.wake();
        Some(answer)
    }
}

/// Asks all shards of a program at once, and merges what they say. `None`: one of them has not answered in time, or
/// there are none.
pub fn ask_all(askers: &[Asker], request: Request) -> Option<Report> {
    let answers: Option<Vec<_>> = askers.iter().map(|asker| asker.post(request)).collect();
    let until = Instant::now() + ANSWER_TIMEOUT;
    let mut all: Option<Report> = None;
    for answer in answers? {
        let report = answer.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
        match &mut all {
            Some(all) => all.merge(report, request),
            None => all = Some(report),
        }
    }
    all
}

/// Questions that wait.
const QUESTIONS_MAX: usize = 64;
/// How long a loop may take to answer: with a million connections, as many turns as a look at all of them takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
