//! One task of an executor tells others of the same thread that something changed.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Something that happens again and again, for tasks of one thread. It carries no value: look at the state, and wait
/// if it is not yet what you want.
///
/// ```text
/// while !state.borrow().ready() { event.wait().await; }
/// ```
///
/// Nothing can happen between the look and the call of `wait`, since no other task runs there; what happens after the
/// call ends the wait, even before its first poll.
#[derive(Debug, Default)]
pub struct LocalEvent {
    /// Times it happened.
    happened: Cell<u64>,
    /// Who waits: number of the wait, and how to wake it. As many as there are waiting tasks.
    waiting: RefCell<Vec<(u64, Waker)>>,
    /// Number of the next wait.
    next_wait: Cell<u64>,
}

impl LocalEvent {
    /// An event that has not happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// It happened: everybody who waits now goes on. Costs nothing to speak of when nobody waits.
    pub fn notify(&self) {
        self.happened.set(self.happened.get() + 1);
        // Taken out first: a waker may run code that waits again.
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits for the next time, counted from this call.
    pub fn wait(&self) -> LocalEventWait<'_> {
        let number = self.next_wait.get();
        self.next_wait.set(number + 1);
        LocalEventWait { event: self, seen: self.happened.get(), number }
    }
}

/// See [`LocalEvent::wait`].
#[must_use = "a future does nothing until it is awaited"]
#[derive(Debug)]
pub struct LocalEventWait<'a> {
    event: &'a LocalEvent,
    seen: u64,
    number: u64,
}

impl Future for LocalEventWait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.event.happened.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.event.waiting.borrow_mut();
        match waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => waiting.push((self.number, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for LocalEventWait<'_> {
    fn drop(&mut self) {
        self.event.waiting.borrow_mut().retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everybody_who_waits_goes_on_once() {
        let event = LocalEvent::new();
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let (mut first, mut second) = (pin!(event.wait()), pin!(event.wait()));
        for _ in 0..2 {
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        event.notify();
        assert_eq!(woken.0.load(Ordering::Relaxed), 2, "each once, however often it was polled");
        assert!(first.poll(&mut context).is_ready() && second.poll(&mut context).is_ready());
        let mut later = pin!(event.wait());
        assert!(later.as_mut().poll(&mut context).is_pending(), "the past does not count");
        event.notify();
        assert!(later.poll(&mut context).is_ready());
    }

    #[test]
    fn what_happens_between_the_call_and_the_first_poll_counts() {
        let event = LocalEvent::new();
        let wait = pin!(event.wait());
        event.notify();
        assert!(wait.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let event = LocalEvent::new();
        {
            let mut wait = pin!(event.wait());
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(event.waiting.borrow().len(), 1);
        }
        assert!(event.waiting.borrow().is_empty());
    }
}
