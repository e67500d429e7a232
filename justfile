# The commands of this project. `just` without arguments lists them.

# Formatting, lints, unit tests and the fast integration tests. The list of modules is chosen for time.
fast := "api:: commands:: http:: streams:: threads:: turns:: websocket::"

_default:
    @just --list --unsorted

# Check the formatting, the lints, the unit tests and the fast integration tests (under two minutes when built)
check: format-check lint
    cargo test --lib --test architecture --test fake_codex --test launchd --test openapi --test soak --test version
    cargo test --test it -- {{ fast }}

# Run the tests that need no more than Rust, node and npm
test:
    cargo test

# Run everything that has to pass before a merge
ci:
    .ci/run

# Run CI, then the supported versions of Codex, long soaks, long fuzzing and the benchmarks (hours)
full: ci
    .ci/full

# Format the sources
format:
    cargo fmt
    cargo fmt --manifest-path tests/fuzz/Cargo.toml

# Fail when the sources are not formatted
format-check:
    cargo fmt --check
    cargo fmt --check --manifest-path tests/fuzz/Cargo.toml

# Run the lints, with and without the features for tests
lint:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --all-targets --features mutations,fuzzing -- -D warnings

# Check the licences, the sources and the advisories of the dependencies
deny:
    cargo deny --locked check

# Run the main paths on versions of Codex and print a table, such as: just matrix 0.140.0 0.171.0
matrix +versions:
    .ci/matrix {{ versions }}

# Generate clients from docs/openapi.json and use them, such as: just clients openapi-typescript hey-api rust
clients *names:
    .ci/clients {{ names }}

# Check on a Mac what only a Mac shows: launchd, upgrades, kills, other users, sleep
mac-check:
    cargo build
    tests/mac-check.sh target/debug/codexd

# Sign a program on a Mac with a certificate of the keychain, so that macOS keeps its permissions over upgrades
sign certificate program="target/release/codexd":
    codesign --force --sign {{ quote(certificate) }} --identifier codexd {{ quote(program) }}
    codesign --verify --strict {{ quote(program) }}

# Run daemons with real and fake app-servers for hours, with kills and restarts, and decide whether something grows or is lost, such as: just soak 0.5
soak hours:
    cargo bench --bench soak -- {{ hours }}

# Rewrite docs/openapi.json, docs/commands.md and the recorded answers of the commands
update:
    CODEXD_UPDATE_DOCS=1 cargo test --test openapi
    CODEXD_UPDATE_DOCS=1 CODEXD_UPDATE_ANSWERS=1 cargo test --test it -- cli::
    CODEXD_UPDATE_ANSWERS=1 cargo test --lib -- commands::

# Take screenshots of eight states of the page, of which docs has two
screenshots:
    .ci/page screenshots

# Make the archives of a release, with checksums, in target/dist
dist *targets:
    .ci/dist {{ targets }}

# Run the commands of the documents against the demo
documents:
    .ci/documents

# Record docs/demo.svg again
recording:
    .ci/recording
