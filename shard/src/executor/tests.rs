use super::*;
use crate::{mesh::mesh, sys::clock};
use std::{cell::RefCell, fs, rc::Rc};

pub(crate) fn config(name: &str) -> ExecutorConfig {
    ExecutorConfig {
        core: topology::discover().unwrap().allowed[0],
        name: name.into(),
        io_memory_bytes: 64 << 10,
        preempt: PREEMPT_DEFAULT,
        nicer_by: 0,
    }
}

/// Runs a future on an executor of its own.
pub(crate) fn on_executor<T: Send + 'static, F: Future<Output = T> + 'static>(
    make: impl FnOnce() -> F + Send + 'static,
) -> T {
    spawn(config("test"), make).unwrap().join().unwrap()
}

#[test]
fn the_first_future_gives_the_result_on_its_own_core() {
    let core = topology::discover().unwrap().allowed[0];
    let name_and_cores = on_executor(|| async {
        (thread::current().name().map(str::to_string), topology::discover().unwrap().allowed)
    });
    assert_eq!(name_and_cores, (Some("test".into()), vec![core]));
}

#[test]
fn a_core_that_is_not_there_is_an_error_and_not_a_panic() {
    let config = ExecutorConfig { core: CoreId(1_000_000), ..config("nowhere") };
    let error = spawn(config, || async {}).unwrap_err();
    assert!(matches!(error, ExecutorError::Pin { core: CoreId(1_000_000) }));
    assert!(error.to_string().contains("core 1000000"));
}

#[test]
fn a_panic_in_the_first_future_is_an_error_of_join() {
    let handle = spawn(config("panics"), || async { panic!("as the test wants it") }).unwrap();
    assert!(matches!(handle.join(), Err::<(), _>(ExecutorError::Panicked)));
}

#[test]
fn a_nice_executor_is_nice_and_so_are_its_blocking_calls() {
    fn nice() -> Option<String> {
        let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(16).map(str::to_string)
    }
    let config = ExecutorConfig { nicer_by: 19, ..config("nice") };
    let (own, second) =
        spawn(config, || async { (nice(), blocking(nice).await.unwrap()) }).unwrap().join().unwrap();
    assert_eq!((own.as_deref(), second.as_deref()), (Some("19"), Some("19")));
}

/// A task that never waits, but yields when told to, leaves the others their turn, and timers and rings, too.
/// Method: a query that runs until tasks of both other classes, started after it and waiting for a timer, are done.
#[test]
fn a_long_task_that_yields_does_not_hold_up_another_class() {
    on_executor(|| async {
        let stop = Rc::new(Cell::new(false));
        let stop_there = stop.clone();
        let query = spawn_local(TaskClass::Query, async move {
            let mut steps = 0u64;
            while !stop.get() {
                steps += 1;
                yield_if_needed().await;
            }
            steps
        });
        for class in [TaskClass::Background, TaskClass::Store] {
            spawn_local(class, sleep(Duration::from_millis(1))).await;
        }
        stop_there.set(true);
        assert!(query.await > 0);
    });
}

#[test]
fn dropping_a_task_ends_it_and_detaching_does_not() {
    on_executor(|| async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let task = |name: &'static str| {
            let log = log.clone();
            spawn_local(TaskClass::Store, async move {
                yield_now().await;
                log.borrow_mut().push(name);
            })
        };
        drop(task("dropped"));
        task("detached").detach();
        assert_eq!(task("cancelled").cancel().await, None);
        task("awaited").await;
        sleep(Duration::from_millis(1)).await;
        let mut log = log.take();
        log.sort_unstable();
        assert_eq!(log, ["awaited", "detached"]);
    });
}

#[test]
fn tasks_of_one_executor_wake_each_other() {
    on_executor(|| async {
        let state = Rc::new((Cell::new(0), LocalEvent::new()));
        let there = state.clone();
        let waiter = spawn_local(TaskClass::Query, async move {
            while there.0.get() < 3 {
                there.1.wait().await;
            }
            there.0.get()
        });
        for _ in 0..3 {
            yield_now().await;
            state.0.set(state.0.get() + 1);
            state.1.notify();
        }
        assert_eq!(waiter.await, 3);
    });
}

#[test]
fn a_blocking_call_holds_up_nobody_and_may_fail() {
    on_executor(|| async {
        let (go, wait) = std::sync::mpsc::channel();
        let call = spawn_local(TaskClass::Background, blocking(move || wait.recv()));
        // The call is under way and ends only because this task runs.
        sleep(Duration::from_millis(1)).await;
        go.send(7).unwrap();
        assert_eq!(call.await.unwrap(), Ok(7));
        let failed = blocking(|| panic!("as the test wants it")).await;
        assert!(failed.is_err_and(|error: io::Error| error.to_string().contains("panicked")));
    });
}

/// Method: a task that would yield for ever is ready when the first future ends; if it kept its executor, the test would
/// hang.
#[test]
fn an_executor_ends_with_its_first_future_whatever_else_runs() {
    on_executor(|| async {
        let forever = || async {
            loop {
                yield_now().await;
            }
        };
        spawn_local::<()>(TaskClass::Query, forever()).detach();
        yield_now().await;
        spawn_local::<()>(TaskClass::Store, forever()).detach();
    });
}

/// Batches of another thread reach a sleeping executor, none is lost, and each is answered before the next is sent.
/// Method: ping-pong through two meshes, the executor on a [`BellWaiter`]; a lost wake hangs the test. The slice is
/// shorter than any turn: given to glommio as its preempt timer, it hangs at once (the module's head says why).
#[test]
fn another_thread_wakes_the_executor_and_is_woken_by_it() {
    const ROUNDS: u32 = 500;
    let (there, back) = (Bell::new().unwrap(), Bell::new().unwrap());
    let (mut out, mut inbound) = mesh::<Box<u32>>(1, std::slice::from_ref(&there), 2);
    let (mut replies, mut answers) = mesh::<Box<u32>>(1, std::slice::from_ref(&back), 2);
    let (mut inbox, mut outbox) = (inbound.remove(0), replies.remove(0));
    let executor =
        spawn(ExecutorConfig { preempt: Duration::from_nanos(1), ..config("echo") }, move || async move {
            let waiter = BellWaiter::new(there).unwrap();
            let mut echoed = 0;
            while echoed < ROUNDS {
                while let Some((_, batch)) = inbox.pop() {
                    yield_if_needed().await;
                    outbox.to(0).push(batch).unwrap();
                    outbox.publish_all();
                    outbox.ring_bell(0);
                    echoed += 1;
                }
                if echoed < ROUNDS {
                    waiter.wait(|| !inbox.is_empty()).await.unwrap();
                }
            }
        })
        .unwrap();
    for round in 0..ROUNDS {
        out[0].to(0).push(Box::new(round)).unwrap();
        out[0].publish_all();
        out[0].ring_bell(0);
        let answer = loop {
            if let Some((_, answer)) = answers[0].pop() {
                break *answer;
            }
            back.prepare_sleep();
            if answers[0].is_empty() {
                back.wait_blocking();
            }
            back.awake();
        };
        assert_eq!(answer, round);
    }
    executor.join().unwrap();
}

/// A wait that is given up leaves the sleeper awake, and the next wait finds what was published meanwhile.
#[test]
fn a_wait_given_up_loses_no_work() {
    on_executor(|| async {
        let bell = Bell::new().unwrap();
        let waiter = Rc::new(BellWaiter::new(bell.clone()).unwrap());
        let there = waiter.clone();
        let task = spawn_local(TaskClass::Store, async move { there.wait(|| false).await });
        sleep(Duration::from_millis(1)).await;
        task.cancel().await;
        assert!(!bell.ring(), "nobody sleeps");
        waiter.wait(|| true).await.unwrap();
    });
}

/// An executor that waits for its bell uses no processor time, and makes no thread for the waiting.
/// Method: the executor thread's own clock is read before and after each of several waits that *another* thread ends,
/// each time after a sleep of its own. The cheapest wait counts: a machine that takes its
/// processor away in the middle of a wake may book that to the thread, but a wait that spins costs all of its time.
#[test]
fn an_idle_executor_costs_nothing() {
    const WAITS: usize = 10;
    const WAIT_MS: u64 = 100;
    let bell = Bell::new().unwrap();
    let ringer = bell.clone();
    let executor = spawn(config("idle"), move || async move {
        let waiter = BellWaiter::new(bell).unwrap();
        // The first wait also pays for what is made lazily.
        waiter.wait(|| true).await.unwrap();
        let mut cheapest_nanos = u64::MAX;
        for _ in 0..WAITS {
            let before = clock::thread_cpu_nanos();
            waiter.wait(|| false).await.unwrap();
            cheapest_nanos = cheapest_nanos.min(clock::thread_cpu_nanos() - before);
        }
        // A worker of ours carries our thread's number in its name.
        let own = fs::read_link("/proc/thread-self").unwrap();
        let worker = format!("iou-wrk-{}\n", own.file_name().unwrap().to_string_lossy());
        let workers = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| *name == worker)
            .count();
        (cheapest_nanos, workers)
    })
    .unwrap();
    for _ in 0..WAITS {
        // Long enough that the executor, rung the last time, sleeps again for most of it.
        thread::sleep(Duration::from_millis(WAIT_MS));
        while !ringer.ring() {
            thread::sleep(Duration::from_millis(WAIT_MS));
        }
    }
    let (cheapest_nanos, workers) = executor.join().unwrap();
    assert!(cheapest_nanos < 5_000_000, "{cheapest_nanos} ns of processor time for the cheapest wait");
    assert_eq!(workers, 0, "a read that waits must not occupy a kernel worker");
}
