//! Short options, and the other names of commands and options.

use super::*;

#[test]
fn ask_has_the_short_options_of_codex() {
    let short = [
        "ask",
        "-m",
        "m",
        "-C",
        "/d",
        "-s",
        "read-only",
        "-a",
        "never",
        "-i",
        "a.png",
        "-o",
        "out",
        "-c",
        "a=b",
        "-p",
        "p",
        "x",
    ];
    let long = [
        "ask",
        "--model",
        "m",
        "--cd",
        "/d",
        "--sandbox",
        "read-only",
        "--ask-for-approval",
        "never",
        "--image",
        "a.png",
        "--output-last-message",
        "out",
        "--config",
        "a=b",
        "--profile",
        "p",
        "x",
    ];
    assert_eq!(parsed(&short), parsed(&long));
    assert!(matches!(parse_words(&["run", "--last", "x"]), Ok(Command::Ask(ask)) if ask.continues));
    assert!(matches!(parse_words(&["exec", "--json", "x"]), Ok(Command::Exec(ask)) if ask.client.json));
}

#[test]
fn commands_have_the_names_that_people_type() {
    for (alias, command) in [("ls", "sessions"), ("ps", "sessions"), ("deny", "decline"), ("rm x", "close x")]
    {
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        assert_eq!(parsed(&words(alias)), parsed(&words(command)));
    }
}
