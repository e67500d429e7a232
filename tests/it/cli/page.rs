//! `docs/commands.md`, which is made from the help of the program.

use std::fmt::Write;
use std::path::Path;

use super::CliUser;

const PAGE: &str = "docs/commands.md";

async fn help_of(user: &CliUser, words: &[&str]) -> String {
    let ended = user.run(words).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    ended.stdout.trim_end().to_owned()
}

#[tokio::test]
async fn page_of_the_commands_has_the_help_of_each() {
    let user = CliUser::at("http://127.0.0.1:9");
    let whole = help_of(&user, &["help"]).await;
    let list = whole.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = commands.map(|line| line.split_whitespace().next().unwrap()).collect();
    let mut page = format!(
        "# Commands\n\nThe help of codexd: `codexd help`, and `codexd help COMMAND` for each command.\n\
         This page is made from the program; `just update` writes it.\n\n```text\n{whole}\n```\n"
    );
    for name in names.into_iter().filter(|name| *name != "help") {
        let help = help_of(&user, &["help", name]).await;
        write!(page, "\n## codexd {name}\n\n```text\n{help}\n```\n").unwrap();
    }
    let home = user.directory().to_str().unwrap();
    assert!(!page.contains(home), "the help depends on the directory {home}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("CODEXD_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "{PAGE} is out of date; run \"just update\"");
}
