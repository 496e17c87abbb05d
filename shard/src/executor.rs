//! The seam around glommio: one executor a thread, pinned, with task classes that share the core by weight.
//!
//! Owner: whoever called [`spawn`] holds the handle; everything else here is called on the executor's own thread.
//! Always: a task stays on the thread that made it; an executor with nothing to do makes no system call, for it has
//! no repeating timer; an executor with something to do never sleeps (below); a panic in a task ends its executor.
//! Not here: sockets (`net.rs`: the I/O loop is not an executor), files (`file.rs`), what the tasks do.
//! Read next: `executor/event.rs` for waking tasks of the same thread; `bell.rs` for being woken by another.
//!
//! glommio is used for what it does well: tasks with shares, timers, file operations on rings of its own. Its sockets
//! and channels are not used (DESIGN §3 has the measurements), and neither are its preempt timer and its thread pool:
//!
//! ```text
//! glommio's turn: poll the rings, waking tasks → arm the preempt timer → run tasks until it fires → none ran? sleep
//! ```
//!
//! If the timer fires before the first task ran, because the thread lost its core in between, glommio takes "none ran"
//! for "none is ready" and sleeps beside tasks that it has just woken, until something else happens. With a timer of
//! 1 ms on a busy core that is a matter of seconds, and a bell that was heard and not answered is not rung again. Any
//! completion on its latency ring does the same. So nothing of ours completes there: the timer is set to [`NEVER`],
//! long tasks yield by the clock and through a read that is always ready, blocking calls get a thread of their own
//! and answer by a bell, and fewer than [`RING_DEPTH`] file requests may be in flight at a time.

mod event;

pub use event::LocalEvent;

use crate::{
    bell::Bell,
    sys::{self, clock, descriptor::executor_file, eventfd::EventFd},
    topology::{self, CoreId},
};
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle, io::BufferedFile};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    io,
    os::fd::AsFd,
    pin::Pin,
    rc::Rc,
    sync::mpsc::{TryRecvError, sync_channel},
    task::{Context, Poll},
    thread,
    time::Duration,
};

/// How long a task runs before [`yield_if_needed`] yields, unless told otherwise; a batch behind a query waits as long.
pub const PREEMPT_DEFAULT: Duration = Duration::from_micros(250);

/// glommio's preempt timer; see the module's head.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Entries of each of glommio's three rings. When that many requests complete within one turn glommio raises the same
/// false alarm as its timer does, so this is also the bound of file requests in flight on one executor.
pub const RING_DEPTH: usize = 256;

/// What an executor is made of.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// The core that its thread, and the threads of its blocking calls, are bound to.
    pub core: CoreId,
    /// Name of the thread; the kernel keeps 15 bytes of it.
    pub name: String,
    /// Bytes kept for file operations and registered with the kernel if the locked-memory limit allows; glommio
    /// rounds up to 64 KiB. More may be in use for large operations.
    pub io_memory_bytes: usize,
    /// How long a task runs before [`yield_if_needed`] lets the executor look at its rings and timers and run others;
    /// [`PREEMPT_DEFAULT`] fits. A task that does not call it holds up everything.
    pub preempt: Duration,
    /// Added to the nice value that the thread inherits, 19 being the most that comes of it. It decides who gets the
    /// core when the I/O loop wants it too.
    pub nicer_by: u8,
}

/// Why an executor did not run, or did not end by itself.
#[derive(Debug)]
pub enum ExecutorError {
    /// The process may have no more threads.
    Thread(io::Error),
    /// The thread cannot be bound to the core.
    Pin {
        /// The core asked for.
        core: CoreId,
    },
    /// Its rings could not be made; usually a limit on locked memory or descriptors (`probe.rs` names the remedy).
    Rings(io::Error),
    /// A task panicked; the message was printed by its thread.
    Panicked,
}

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "cannot start an executor's thread: {error}; see `ulimit -u`"),
            Self::Pin { core } => write!(f, "cannot bind an executor to core {core}; see `taskset -p $$`"),
            Self::Rings(error) => {
                write!(f, "cannot make an executor's rings: {error}; see `ulimit -l` and `ulimit -n`")
            }
            Self::Panicked => write!(f, "a task panicked and took its executor along"),
        }
    }
}

impl std::error::Error for ExecutorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) | Self::Rings(error) => Some(error),
            Self::Pin { .. } | Self::Panicked => None,
        }
    }
}

/// What a task is for; the classes share the executor's time by weight when more than one wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskClass {
    /// Draining the inbound rings, appending, evaluating alerts.
    Store,
    /// Answering queries.
    Query,
    /// Flushing, compaction, checkpoints.
    Background,
}

impl TaskClass {
    const ALL: [TaskClass; 3] = [TaskClass::Store, TaskClass::Query, TaskClass::Background];

    /// Name for glommio's statistics, and weight out of glommio's 1,000. A store task drains and sleeps again, so it
    /// rarely uses its share; queries get four times what background work gets, which must still get on.
    fn queue(self) -> (&'static str, usize) {
        match self {
            Self::Store => ("store", 1_000),
            Self::Query => ("query", 400),
            Self::Background => ("background", 100),
        }
    }
}

thread_local! {
    /// The task queues of this thread's executor, in the order of [`TaskClass::ALL`].
    static QUEUES: Cell<Option<[TaskQueueHandle; TaskClass::ALL.len()]>> = const { Cell::new(None) };
    /// Nanoseconds a task may run, and the time of the monotonic clock when its run is over.
    static SLICE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    /// What [`yield_now`] reads; there while the executor runs.
    static ALWAYS_READY: RefCell<Option<Rc<BufferedFile>>> = const { RefCell::new(None) };
}

/// A running executor.
#[derive(Debug)]
pub struct ExecutorHandle<T> {
    thread: thread::JoinHandle<Option<T>>,
    nice_refused: Option<io::Error>,
}

impl<T> ExecutorHandle<T> {
    /// Why the executor has no other nice value than it inherited, though one was asked for: a sandbox forbids it. It
    /// runs all the same.
    pub fn nice_refused(&self) -> Option<&io::Error> {
        self.nice_refused.as_ref()
    }

    /// Waits for the first future to end; tasks that still run then are dropped.
    ///
    /// # Errors
    /// [`ExecutorError::Panicked`].
    pub fn join(self) -> Result<T, ExecutorError> {
        self.thread.join().ok().flatten().ok_or(ExecutorError::Panicked)
    }
}

/// Starts a thread with an executor and, on it, the future that `make` makes; returns once the executor runs.
/// It ends when that future does.
///
/// # Errors
/// See [`ExecutorError`]; then nothing runs.
pub fn spawn<T, F>(
    config: ExecutorConfig,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorHandle<T>, ExecutorError>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (started, start) = sync_channel(1);
    let builder = thread::Builder::new().name(config.name.clone());
    let thread = builder
        .spawn(move || {
            let (executor, nice_refused) = match make_executor(&config) {
                Ok(made) => made,
                Err(error) => {
                    // The receiver waits for exactly this.
                    let _ = started.send(Err(error));
                    return None;
                }
            };
            executor.run(async move {
                let ready = EventFd::always_ready().and_then(|ready| executor_file(ready.as_fd()));
                match ready {
                    Ok(ready) => ALWAYS_READY.set(Some(Rc::new(ready))),
                    Err(error) => {
                        let _ = started.send(Err(ExecutorError::Rings(error)));
                        return None;
                    }
                }
                QUEUES.set(Some(TaskClass::ALL.map(make_queue)));
                SLICE.set((u64::try_from(config.preempt.as_nanos()).unwrap_or(u64::MAX), 0));
                let _ = started.send(Ok(nice_refused));
                let output = make().await;
                // The executor closes its files, so this one must go before it does.
                ALWAYS_READY.take();
                Some(output)
            })
        })
        .map_err(ExecutorError::Thread)?;
    match start.recv() {
        Ok(Ok(nice_refused)) => Ok(ExecutorHandle { thread, nice_refused }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ExecutorError::Panicked),
    }
}

/// An executor on this thread, and why the thread could not be made nicer, if that was refused.
fn make_executor(
    config: &ExecutorConfig,
) -> Result<(glommio::LocalExecutor, Option<io::Error>), ExecutorError> {
    // Bound by us and not by glommio: its placement reads the machine's topology from sysfs, which a container may
    // not show. Threads started from here on inherit core and nice value.
    if !topology::pin(config.core) {
        return Err(ExecutorError::Pin { core: config.core });
    }
    let nice_refused = match config.nicer_by {
        0 => None,
        steps => sys::thread::be_nicer_by(steps).err(),
    };
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&config.name)
        .io_memory(config.io_memory_bytes)
        .ring_depth(RING_DEPTH)
        .preempt_timer(NEVER)
        .make()
        .map_err(|error| ExecutorError::Rings(error.into()))?;
    Ok((executor, nice_refused))
}

fn make_queue(class: TaskClass) -> TaskQueueHandle {
    let (name, shares) = class.queue();
    glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
}

/// A task of this thread's executor; awaiting it gives its output, dropping it ends it at its next wait.
#[must_use = "a dropped task is ended; `detach` lets it run"]
#[derive(Debug)]
pub struct Task<T>(glommio::Task<T>);

impl<T> Task<T> {
    /// Lets the task run on without anybody waiting for it.
    pub fn detach(self) {
        // The join handle only observes the task; dropping it changes nothing.
        drop(self.0.detach());
    }

    /// Ends the task and waits until it is gone; its output if it had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Starts a task on this thread's executor.
///
/// # Panics
/// Outside an executor made by [`spawn`], which is a mistake of the caller.
pub fn spawn_local<T: 'static>(class: TaskClass, future: impl Future<Output = T> + 'static) -> Task<T> {
    let queues = QUEUES.get().expect("tasks are spawned on a thread that runs an executor");
    let task = glommio::spawn_local_into(future, queues[class as usize]);
    Task(task.expect("the three queues are never removed"))
}

/// Waits at least `duration`. No timer is left behind when the future is dropped.
pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Lets the executor look at its rings and timers, and other tasks run, if this one has had its time. Long work calls it
/// at every step of some microseconds; it costs a look at the clock.
///
/// The core is offered to the I/O loop, too, which otherwise gets it when the kernel's slice of some milliseconds is over.
pub async fn yield_if_needed() {
    if clock::monotonic_nanos() >= SLICE.get().1 {
        offer_core();
        yield_now().await;
        let (length, _) = SLICE.get();
        SLICE.set((length, clock::monotonic_nanos().saturating_add(length)));
    }
}

/// Offers the core to the I/O loop, if that has something to do: a thread that works on gives it up only after the kernel's
/// slice.
pub fn offer_core() {
    thread::yield_now();
}

/// Lets the executor look at its rings and timers, and every task that is ready run, before this one goes on. It costs
/// a few system calls.
pub async fn yield_now() {
    // glommio's own yields leave the task ready, and with ready tasks and no preempt timer the rings are not looked at.
    // A read that is answered at once takes the task out of the queue until the next look.
    let Some(ready) = ALWAYS_READY.with_borrow(Option::clone) else {
        // The first future has ended and the executor ends with this turn: a task that yields is not run again.
        return std::future::pending().await;
    };
    // It fails only if the ring is broken; then all else fails, too, and can say so.
    let _ = ready.read_at(0, 8).await;
}

/// Runs `work`, which blocks, on a thread of its own with the executor's core and nice value, and waits for it without
/// holding up other tasks. For rare calls: a thread costs some tens of microseconds.
///
/// # Errors
/// If no thread or descriptor is left, or the work panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let bell = Bell::new()?;
    let waiter = BellWaiter::new(bell.clone())?;
    let (answer, answers) = sync_channel(1);
    thread::Builder::new().name("blocking".into()).spawn(move || {
        // Dropped in reverse order: the bell rings when the answer is there, or its sender gone.
        let _ring = RingOnDrop(bell);
        let answer = answer;
        // Nobody waits any more if the task was dropped.
        let _ = answer.send(work());
    })?;
    loop {
        let mut received = Err(TryRecvError::Empty);
        waiter
            .wait(|| {
                received = answers.try_recv();
                !matches!(received, Err(TryRecvError::Empty))
            })
            .await?;
        match received {
            Ok(output) => return Ok(output),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(io::Error::other("a blocking call panicked")),
        }
    }
}

struct RingOnDrop(Bell);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// Where an executor sleeps until another thread rings its bell: a read of the eventfd on glommio's own ring.
#[derive(Debug)]
pub struct BellWaiter {
    bell: Bell,
    file: BufferedFile,
}

impl BellWaiter {
    /// For the one task that sleeps on `bell`.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    ///
    /// # Panics
    /// Outside an executor, which is a mistake of the caller.
    pub fn new(bell: Bell) -> io::Result<Self> {
        let file = executor_file(bell.as_fd())?;
        Ok(Self { bell, file })
    }

    /// Waits until the bell rings, unless `has_work` says yes once ringers know that we sleep. It may end without work.
    /// Dropped while waiting it loses no work: the next wait looks first.
    ///
    /// # Errors
    /// If the ring refuses the read.
    pub async fn wait(&self, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        self.bell.prepare_sleep();
        let _awake = AwakeOnDrop(&self.bell);
        if has_work() {
            return Ok(());
        }
        self.file.read_at(0, 8).await?;
        Ok(())
    }
}

/// Also when the wait is dropped: otherwise every ringer would pay for a sleeper that is not there.
struct AwakeOnDrop<'a>(&'a Bell);

impl Drop for AwakeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.awake();
    }
}

#[cfg(test)]
pub(crate) mod tests;
