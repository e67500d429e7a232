use super::*;

const DOCUMENT: &str = include_str!("example.md");

fn screen(width: usize, has_colors: bool) -> OutputTarget {
    OutputTarget::terminal(width, has_colors)
}

#[test]
fn render_lays_out_document_at_80_and_140_columns() {
    for width in [80, 140] {
        let shown = render(&screen(width, false), DOCUMENT);
        let path = format!("{}/src/commands/markdown/example-{width}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("CODEXD_UPDATE_ANSWERS").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&path).unwrap(), "CODEXD_UPDATE_ANSWERS=1 updates {path}");
    }
}

#[test]
fn stream_returns_the_same_lines_in_any_pieces() {
    let screen = screen(60, true);
    let whole = render(&screen, DOCUMENT);
    let characters: Vec<char> = DOCUMENT.chars().collect();
    for size in [1, 2, 3, 7, 20, 100] {
        let mut stream = MarkdownStream::new(screen);
        let pieces = characters.chunks(size).map(|piece| piece.iter().collect::<String>());
        let shown: String = pieces.map(|piece| stream.push(&piece)).collect();
        assert_eq!(shown + &stream.finish(), whole, "in pieces of {size}");
    }
}

#[test]
fn stream_returns_lines_as_soon_as_they_are_final() {
    let mut stream = MarkdownStream::new(screen(20, false));
    assert_eq!(stream.push("one two three four five six"), "one two three four\n");
    assert_eq!(stream.push(" *seven"), "");
    assert_eq!(stream.push("*\n\n- a\n- b"), "five six seven\n\n");
    assert_eq!(stream.push("\n- c"), "• a\n");
    assert_eq!(stream.push("\n\n```\nx = 1\ny ="), "• b\n• c\n\n    x = 1\n");
    assert_eq!(stream.push(" 2\nz"), "    y = 2\n");
    assert_eq!(stream.finish(), "    z\n");
    assert_eq!(stream.push("# A\n"), "A\n");
    assert_eq!(stream.push("next\n"), "");
    assert_eq!(stream.push("\n"), "\nnext\n");
    assert_eq!(stream.finish(), "");
}

#[test]
fn render_lets_no_control_character_through() {
    let source = "a&#27;[2J\u{1b}]0;t\u{7} [b\u{9b}](x\u{1b}y) `c\u{8}`\n\n```\nd\u{1b}\n```\n\n<e\u{1b}>\n\n|f\u{1b}|\n|-|\n|g\u{202e}|\n";
    let shown = render(&screen(80, false), source);
    let passed = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(passed, None, "{shown:?}");
}

#[test]
fn render_paints_only_with_colors() {
    let source = "# T\n\n**b** *i* `c` ~~s~~ [l](http://x)\n";
    assert!(render(&screen(80, true), source).contains('\u{1b}'));
    assert_eq!(render(&screen(80, false), source), "T\n\nb i `c` s l (http://x)\n");
}
