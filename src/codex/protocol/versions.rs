//! Which versions of Codex codexd works with, what they brought, and how the version is read.

/// The oldest Codex that codexd works with: the first that repeats the id of a user's message, without which a turn
/// could be run twice.
pub const MINIMUM: [u64; 3] = [0, 140, 0];
/// The oldest Codex for `--server-strategy shared`: the first whose terminal joins the app-server at the control socket.
pub const MINIMUM_SHARED: [u64; 3] = [0, 160, 0];
/// The newest Codex that codexd was tested with.
pub const NEWEST_TESTED: [u64; 3] = [0, 171, 0];
/// The oldest Codex that works, shared with a terminal or not.
pub fn minimum(is_shared: bool) -> [u64; 3] {
    if is_shared { MINIMUM_SHARED } else { MINIMUM }
}

/// The first version, as major and minor, that reports the client ID of a turn (`clientUserMessageId`,
/// `clientId`).
pub const REPEATS_MESSAGE_ID: (u64, u64) = (0, 140);
/// The first version, as major and minor, that has `thread/turns/list`; before, `thread/read` has the turns.
pub const LISTS_TURNS: (u64, u64) = (0, 130);
/// From this version on `thread/resume` and `thread/fork` keep the approval policy of the thread; before, they take the
/// default, which `untrusted` changes (0.140.0 takes the default, 0.160.1 keeps, measured).
pub const KEEPS_APPROVAL_POLICY: (u64, u64) = (0, 160);

/// The first version, as major and minor, whose `thread/fork` ends at a turn (0.140.0 copies all of them, 0.160.1 ends
/// there, measured).
pub const FORKS_AT_TURN: (u64, u64) = (0, 160);

/// The command that installs Codex where there is none; without a prefix, npm on Debian needs root.
pub const INSTALL_COMMAND: &str = "npm install --global --prefix ~/.local @openai/codex";
/// The command that installs the newest Codex in place of another one.
pub const UPGRADE_COMMAND: &str = "npm install --global @openai/codex";
/// The command that gives Codex an account.
pub const LOGIN_COMMAND: &str = "codex login";

/// The version in a user agent, in which it follows our own name: `name/0.169.0 (…) …`.
pub fn in_user_agent(agent: &str) -> Option<&str> {
    agent.split_once('/').and_then(|(_, rest)| rest.split(' ').next())
}

/// What a program is asked for its version with.
pub const VERSION_FLAG: &str = "--version";

/// The version in what Codex prints when it is asked for it, such as `codex-cli 0.171.0`; `None` for another program.
pub fn in_output(output: &str) -> Option<&str> {
    let line = output.lines().next()?;
    let version = line.strip_prefix("codex-cli ").or_else(|| line.strip_prefix("codex "))?.trim();
    numbers(version).map(|_| version)
}

/// Why a version is too old, as a sentence; `None` when it is not, and for one that cannot be read.
pub fn why_too_old(version: &str, is_shared: bool) -> Option<String> {
    let numbers = numbers(version)?;
    if numbers < MINIMUM {
        return Some(format!(
            "Codex {version} is older than {}, the oldest that codexd works with; it gets no turn with an \
             Idempotency-Key and no queued turn.",
            text(MINIMUM)
        ));
    }
    (numbers < minimum(is_shared)).then(|| {
        format!(
            "Codex {version} is older than {}, the oldest for --server-strategy shared: in a terminal it does not use \
             the shared app-server.",
            text(MINIMUM_SHARED)
        )
    })
}

/// That a version is newer than every one that codexd was tested with, as a sentence.
pub fn why_untested(version: &str) -> Option<String> {
    let is_newer = numbers(version)? > NEWEST_TESTED;
    let tested = text(NEWEST_TESTED);
    is_newer.then(|| {
        format!("Codex {version} is newer than {tested}, the newest that this codexd was tested with.")
    })
}

/// Three numbers as a version.
pub fn text([major, minor, patch]: [u64; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// The three numbers of a version, without what follows a dash or a plus.
pub fn numbers(version: &str) -> Option<[u64; 3]> {
    let (numbers, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let numbers: Vec<u64> = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// Whether a version is older than the `(major, minor)` that brought something; `false` for one that cannot be read.
pub fn is_older(version: &str, first: (u64, u64)) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u64>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_the_user_agent() {
        let version = |agent: &str| numbers(in_user_agent(agent)?);
        assert_eq!(version("codexd/0.169.0 (Debian 12; x86_64) dumb (codexd; 0.1.0)"), Some([0, 169, 0]));
        assert_eq!(version("codexd/0.1000.0-alpha.3 (x)"), Some([0, 1000, 0]));
        assert_eq!(version("codexd/new"), None);
        assert_eq!(version("codexd"), None);
        assert_eq!(in_output("codex-cli 0.171.0\n"), Some("0.171.0"));
        assert_eq!(in_output("codex-cli 0.172.0-alpha.3"), Some("0.172.0-alpha.3"));
        for other in ["v22.1.0", "codex-cli", "codex-cli new", "Usage: codex-cli 0.1.0", ""] {
            assert_eq!(in_output(other), None, "{other}");
        }
        assert_eq!(why_untested("0.171.0"), None);
        assert!(
            why_untested("0.172.0-alpha.1")
                .is_some_and(|why| why.contains("0.172.0-alpha.1 is newer than 0.171.0"))
        );
        assert_eq!(why_too_old("0.140.0", false), None);
        assert!(is_older("0.139.9", REPEATS_MESSAGE_ID) && !is_older("0.140.0-alpha.1", REPEATS_MESSAGE_ID));
        assert!(!is_older("new", REPEATS_MESSAGE_ID));
    }
}
