//! Tasks on the thread of their shard.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wirestack::blocking;
use wirestack::local::{Runtime, TcpListener, TcpStream};
use wirestack::nic::loopback::Loopback;
use wirestack::nic::wait::now;
use wirestack::smoltcp::time::Duration;

use crate::pair::{at_server, config, devices, launch, noise, sockets_len};

fn runtime(number: u8, nic: Loopback<'static>) -> Runtime<Loopback<'static>> {
    Runtime::new(nic, config(number)).expect("a runtime")
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut room = [0; 4_096];
    loop {
        match stream.read(&mut room).await? {
            0 => return Ok(()),
            len => stream.write_all(&room[..len]).await?,
        }
    }
}

/// A task for each connection; one that begins with `!` panics.
async fn serve(listener: TcpListener, spawner: wirestack::local::Spawner) {
    while let Ok((stream, _)) = listener.accept().await {
        let inner = spawner.clone();
        spawner.spawn(async move {
            let mut first = [0];
            if stream.peek(&mut first).await.is_ok_and(|len| len == 1) && first == *b"!" {
                panic!("on purpose");
            }
            // Tasks start tasks.
            inner.spawn(async move { drop(echo(stream).await) });
        });
    }
}

/// A server on a thread of its own, until `stop` says so.
fn server(nic: Loopback<'static>) -> (thread::JoinHandle<usize>, Stop) {
    let stop = Stop::default();
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let mut runtime = runtime(1, nic);
        let listener = runtime.stack().listen(at_server(7)).unwrap();
        let spawner = runtime.spawner().clone();
        runtime.spawner().spawn(serve(listener, spawner));
        runtime.block_on(stopped.wait()).expect("the interface stays");
        sockets_len(runtime.stack())
    });
    (thread, stop)
}

/// Something that another thread says.
#[derive(Debug, Clone, Default)]
struct Stop(Arc<Mutex<(bool, Option<Waker>)>>);

impl Stop {
    fn stop(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    async fn wait(self) {
        poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(context.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[test]
fn two_runtimes_talk() {
    let (one, other) = devices();
    let (server, stop) = server(one);
    let mut runtime = runtime(2, other);
    let stack = runtime.stack().clone();
    let spawner = runtime.spawner().clone();
    let done = Rc::new(RefCell::new(0));
    let all = runtime.block_on(async {
        for number in 0..50 {
            let (stack, done) = (stack.clone(), Rc::clone(&done));
            spawner.spawn(async move {
                let data = noise(10_000 + number);
                let mut stream = stack.connect(at_server(7)).await.unwrap();
                stream.write_all(&data).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).await.unwrap();
                assert!(back == data);
                *done.borrow_mut() += 1;
            });
        }
        while *done.borrow() < 50 {
            stack.sleep(Duration::from_millis(1)).await;
        }
        *done.borrow()
    });
    assert_eq!(all.unwrap(), 50);
    stop.stop();
    server.join().unwrap();
}

#[test]
fn a_task_that_panics_closes_its_connection() {
    let (one, other) = devices();
    let (server, stop) = server(one);
    let client = launch(config(2), other);
    let connect = || blocking::TcpStream::connect_on(client.stack(), at_server(7)).unwrap();
    let (mut good, mut bad) = (connect(), connect());
    good.write_all(b"good").unwrap();
    bad.write_all(b"!").unwrap();
    let error = bad.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "what it was sent, nobody has read");
    for mut stream in [good, connect()] {
        stream.write_all(b"more").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    }
    stop.stop();
    server.join().unwrap();
}

/// The loop is asleep, about to sleep or awake when it is woken; whichever it is, it hears.
#[test]
fn a_wake_from_another_thread_is_not_lost() {
    let (one, _other) = devices();
    let mut runtime = runtime(1, one);
    let (ask, asked) = mpsc::channel::<Stop>();
    let thread = thread::spawn(move || asked.into_iter().for_each(|stop| stop.stop()));
    for _ in 0..2_000 {
        let stop = Stop::default();
        ask.send(stop.clone()).unwrap();
        runtime.block_on(stop.wait()).unwrap();
    }
    // The same of a task.
    let finished = Stop::default();
    let inner = finished.clone();
    let stops: Vec<_> = (0..2_000).map(|_| Stop::default()).collect();
    stops.iter().for_each(|stop| ask.send(stop.clone()).unwrap());
    runtime.spawner().spawn(async move {
        for stop in stops {
            stop.wait().await;
        }
        inner.stop();
    });
    runtime.block_on(finished.wait()).unwrap();
    drop(ask);
    thread.join().unwrap();
}

#[test]
fn sleeps_end_in_their_order_and_not_early() {
    let (one, _other) = devices();
    let mut runtime = runtime(1, one);
    let stack = runtime.stack().clone();
    let order = Rc::new(RefCell::new(Vec::new()));
    // Of all the same one: a task may begin late.
    let begun = stack.now();
    for millis in [9, 3, 6, 0, 12] {
        let (stack, order) = (stack.clone(), Rc::clone(&order));
        runtime.spawner().spawn(async move {
            let until = begun + Duration::from_millis(millis);
            // Given up, at once and while it waits.
            drop(stack.sleep(Duration::from_millis(1)));
            assert!(futures_util::poll!(pin!(stack.sleep(Duration::from_secs(3_600)))).is_pending());
            stack.sleep_until(until).await;
            assert!(now() >= until);
            order.borrow_mut().push(millis);
        });
    }
    runtime
        .block_on(async {
            while order.borrow().len() < 5 {
                stack.sleep(Duration::from_micros(300)).await;
            }
        })
        .unwrap();
    assert_eq!(*order.borrow(), [0, 3, 6, 9, 12]);
}

#[test]
fn everybody_hears_that_the_interface_has_gone() {
    let (one, other) = devices();
    let mut runtime = runtime(1, one);
    let stack = runtime.stack().clone();
    let spawner = runtime.spawner().clone();
    let told = Rc::new(RefCell::new(Vec::new()));
    drop(other);
    let (accepting, receiving) = (Rc::clone(&told), Rc::clone(&told));
    let (listening, binding) = (stack.clone(), stack.clone());
    spawner.spawn(async move {
        let listener = listening.listen(at_server(80)).unwrap();
        let kind = listener.accept().await.unwrap_err().kind();
        accepting.borrow_mut().push(kind);
    });
    spawner.spawn(async move {
        let socket = binding.udp_bind(at_server(80)).unwrap();
        let kind = socket.recv(&mut [0]).await.unwrap_err().kind();
        receiving.borrow_mut().push(kind);
    });
    let hearing_stack = stack.clone();
    // It ends when the tasks have been told, and they are told because it has ended.
    let heard = Stop::default();
    let hearing = heard.clone();
    spawner.spawn(async move {
        let listener = hearing_stack.listen(at_server(82)).unwrap();
        drop(listener.accept().await);
        hearing.stop();
    });
    runtime.block_on(heard.wait()).expect("the future has heard of it");
    let later = runtime.block_on(async { stack.connect(at_server(80)).await.map(drop) });
    assert_eq!(later.unwrap().unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(*told.borrow(), [ErrorKind::NetworkDown; 2]);
    assert_eq!(stack.listen(at_server(81)).unwrap_err().kind(), ErrorKind::NetworkDown);
}
