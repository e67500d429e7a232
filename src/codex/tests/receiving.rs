//! From bytes to messages.

use super::{Connection, until_idle};

#[tokio::test(start_paused = true)]
async fn message_may_be_split_at_any_byte() {
    let text =
        "{\"method\":\"a\",\"params\":\"é\u{1F600}\"}\n\n{\"method\":\"b\",\"id\":7,\"params\":[1]}\r\n";
    let expected = ["a \"é\u{1F600}\"", "request 7 b [1]"];
    for cut in 0..=text.len() {
        let mut connection = Connection::new();
        for part in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
            connection.receive(part).await;
        }
        assert_eq!(connection.notes.all(), expected, "cut at {cut}");
    }
    let mut connection = Connection::new();
    for byte in text.bytes() {
        connection.receive([byte]).await;
    }
    assert_eq!(connection.notes.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn empty_lines_are_ignored() {
    let mut connection = Connection::new();
    connection.receive("\n\r\n  \n\t\r\n{\"method\":\"a\"}\n\n").await;
    let (end, notes) = connection.end().await;
    assert_eq!(notes, ["a null"]);
    assert_eq!((end.trailing_message_length, end.flushed_trailing_message), (0, false));
}

#[tokio::test(start_paused = true)]
async fn invalid_message_is_reported_and_skipped() {
    let mut connection = Connection::new();
    let call = connection.call("a");
    let id = connection.next_call("a").await;
    connection.receive(b"npm warn something\n\xff\xfe\n{\"id\":99,\"result\":1}\n{}\n").await;
    connection.respond(id, "1").await;
    assert_eq!(call.await.unwrap().unwrap(), "1");
    let notes = connection.notes.all();
    // A response without a pending call is not invalid: its caller may have given up.
    assert_eq!(notes.len(), 3, "{notes:?}");
    for (note, bytes) in notes.iter().zip([18, 2, 2]) {
        assert!(note.starts_with(&format!("invalid message of {bytes} bytes: ")), "{note}");
    }
}

#[tokio::test(start_paused = true)]
async fn line_over_the_cap_is_skipped_and_reported_however_it_is_split() {
    let long = format!("{{\"method\":\"{}\"}}", "x".repeat(100));
    for piece in [1, 7, 64, 65, 100] {
        let mut connection = Connection::with_cap(64);
        for part in long.as_bytes().chunks(piece) {
            connection.receive(part).await;
        }
        connection.receive("\n{\"method\":\"after\"}\n").await;
        let notes = connection.notes.all();
        let method = Some("x".repeat(100));
        let skipped = format!("skipped {} of 64 bytes: None {method:?}", long.len());
        assert_eq!(notes, [skipped, "after null".to_owned()], "in pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn line_of_exactly_the_cap_is_kept() {
    let line = format!("{{\"method\":\"{}\"}}", "x".repeat(51));
    assert_eq!(line.len(), 64);
    let mut connection = Connection::with_cap(64);
    for byte in line.bytes() {
        connection.receive([byte]).await;
    }
    connection.receive("\n").await;
    assert_eq!(connection.notes.all(), [format!("{} null", "x".repeat(51))]);
}

#[tokio::test(start_paused = true)]
async fn last_message_without_newline_counts() {
    let mut connection = Connection::new();
    let call = connection.call("a");
    let id = connection.next_call("a").await;
    let last = format!("{{\"id\":{id},\"result\":\"the result\"}}");
    connection.receive(&last).await;
    assert!(!call.is_finished());
    let (end, notes) = connection.end().await;
    assert_eq!((end.trailing_message_length, end.flushed_trailing_message), (last.len(), true));
    assert_eq!(call.await.unwrap().unwrap(), "\"the result\"");
    assert!(notes.is_empty(), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn partial_message_at_the_end_is_reported() {
    let half = "{\"method\":\"turn/comp";
    for (cap, expected) in [(1024, "invalid message of 20 bytes: "), (8, "skipped 20 of 8 bytes: None None")]
    {
        let mut connection = Connection::with_cap(cap);
        connection.receive(half).await;
        let (end, notes) = connection.end().await;
        assert_eq!((end.trailing_message_length, end.flushed_trailing_message), (half.len(), false));
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with(expected), "{notes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reader_waits_while_the_backlog_is_full() {
    let mut connection = Connection::new();
    let much = 9 * 1024 * 1024;
    connection.backlog.add(much);
    connection.receive("{\"method\":\"a\"}\n").await;
    connection.receive("{\"method\":\"b\"}\n").await;
    until_idle().await;
    assert_eq!(connection.notes.all(), ["a null"]);
    connection.backlog.remove(much);
    until_idle().await;
    assert_eq!(connection.notes.all(), ["a null", "b null"]);
}

#[tokio::test(start_paused = true)]
async fn request_over_the_cap_keeps_its_id_however_it_is_split() {
    let params = format!("{{\"command\":\"{}\"}}", "x".repeat(100));
    let long = format!("{{\"method\":\"m\",\"params\":{params},\"id\":\"r-1\"}}");
    for piece in [1, 7, 64, 65, 100, 1000] {
        let mut connection = Connection::with_cap(64);
        for part in long.as_bytes().chunks(piece) {
            connection.receive(part).await;
        }
        connection.receive("\n").await;
        let skipped = format!("skipped {} of 64 bytes: {:?} {:?}", long.len(), Some("\"r-1\""), Some("m"));
        assert_eq!(connection.notes.all(), [skipped], "in pieces of {piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn response_over_the_cap_is_kept_while_its_call_is_pending() {
    for piece in [1, 7, 1000] {
        let mut connection = Connection::with_cap(64);
        let call = connection.call("a");
        let id = connection.next_call("a").await;
        let result = format!("\"{}\"", "x".repeat(200));
        let line = format!("{{\"id\":{id},\"result\":{result}}}\n");
        for part in line.as_bytes().chunks(piece) {
            connection.receive(part).await;
        }
        assert_eq!(call.await.unwrap().unwrap(), result, "in pieces of {piece}");
        connection.receive(line).await;
        let notes = connection.notes.all();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("skipped "), "no call awaits it: {notes:?}");
    }
}
