//! A wait ends with its condition.

use crate::support::wait::{wait_until, wait_until_async};

#[tokio::test]
async fn wait_until_polls_until_condition_holds() {
    let mut looks = 0;
    let found = wait_until("the third look", || {
        looks += 1;
        (looks == 3).then_some("found")
    });
    assert_eq!(found.await, "found");

    let looks = std::cell::Cell::new(0);
    wait_until_async("the third look", async || {
        tokio::task::yield_now().await;
        looks.set(looks.get() + 1);
        (looks.get() == 3).then_some(())
    })
    .await;
    assert_eq!(looks.get(), 3);
}
