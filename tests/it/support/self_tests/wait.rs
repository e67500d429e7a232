//! Waits poll until their condition holds.

use crate::support::wait::{wait_until, wait_until_async};

#[tokio::test]
async fn wait_until_polls_until_condition_holds() {
    let mut polls = 0;
    let found = wait_until("the third poll", || {
        polls += 1;
        (polls == 3).then_some("found")
    });
    assert_eq!(found.await, "found");

    let polls = std::cell::Cell::new(0);
    wait_until_async("the third poll", async || {
        tokio::task::yield_now().await;
        polls.set(polls.get() + 1);
        (polls.get() == 3).then_some(())
    })
    .await;
    assert_eq!(polls.get(), 3);
}
