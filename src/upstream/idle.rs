//! A deadline between two pieces of a body that costs nothing while pieces come.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Counts only the time in which the other side was waited for. Its timer is made at the first wait and moved
/// only when it fires, so that a busy stream never touches the timer wheel.
#[derive(Debug)]
pub(crate) struct Idle {
    period: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// The longest silence that is borne.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, since: None, timer: None }
    }

    /// A piece came: the next wait counts from its own start.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// To be called where there is nothing to read; ready once the silence has lasted the whole period.
    pub(crate) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.period;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_period() {
        let begun = Instant::now();
        let mut idle = Idle::new(Duration::from_mins(2));
        poll_fn(|cx| idle.poll_silence(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_starts_the_count_anew() {
        let mut idle = Idle::new(Duration::from_mins(2));
        assert!(timeout(Duration::from_secs(100), poll_fn(|cx| idle.poll_silence(cx))).await.is_err());
        idle.moved();
        advance(Duration::from_secs(500)).await;
        let begun = Instant::now();
        poll_fn(|cx| idle.poll_silence(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 120);
    }
}
