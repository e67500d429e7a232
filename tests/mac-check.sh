#!/bin/bash
# Checks on a Mac what no other system can show, and prints a verdict per line. It installs codexd as a service of this user with
# a home directory of its own, and removes it at the end. Run it as: tests/mac-check.sh [PATH-OF-CODEXD]
# With CODEXD_MAC_CHECK_SECOND_USER=NAME, sudo starts a request as that user, which must be rejected.
set -u
[ "$(uname -s)" = Darwin ] || { echo 'This is not a Mac.' >&2; exit 2; }
built=$(cd "$(dirname "${1:-target/debug/codexd}")" && pwd)/codexd
target=gui/$(id -u)/codexd
launchctl print "$target" > /dev/null 2>&1 && { echo "codexd is a service here already; uninstall it first." >&2; exit 2; }

person=$HOME
HOME=$(mktemp -d)
export HOME
port=$((20000 + RANDOM % 20000))
base=http://127.0.0.1:$port
codexd=$HOME/bin/codexd
failed=0
mkdir -p "$HOME/bin" "$HOME/src"
install -m 755 "$built" "$codexd"
trap '"$codexd" service uninstall > /dev/null 2>&1; pkill -P $$ > /dev/null 2>&1; rm -rf "$HOME"' EXIT

verdict() { # NAME COMMAND...: whether the command succeeds
  local name=$1
  shift
  if "$@" > "$HOME/out" 2>&1; then echo "ok    $name"; else
    echo "FAIL  $name"
    sed 's/^/      /' "$HOME/out" | tail -n 8
    failed=1
  fi
}
note() { echo "note  $1: $(cat)"; }
within() { # SECONDS COMMAND...: repeats the command until it succeeds
  local until=$((SECONDS + $1))
  shift
  until "$@"; do [ $SECONDS -lt $until ] || return 1; sleep 0.3; done
}
pid() { launchctl print "$target" | awk '$1 == "pid" && $2 == "=" { print $3; exit }'; }
answers() { [ -n "$(pid)" ] && "$codexd" status --json --local-api-base "$base" | grep -q "\"pid\": $(pid),"; }
is_other() { [ -n "$(pid)" ] && [ "$(pid)" != "$1" ] && answers; }
is_gone() { launchctl print "$target" > /dev/null 2>&1; [ $? = 113 ]; }
have_ended() { ! kill -0 "$@" 2> /dev/null; }
no_process() { ! pgrep -f "$1" > /dev/null; }
has_process() { pgrep -f "$1" > /dev/null; }

# A command as Codex starts it: the login shell in a session of its own, whose environment macOS hides.
cat > "$HOME/bin/app-server" <<END
#!/bin/zsh
/usr/bin/perl -MPOSIX -e 'POSIX::setsid(); exec "/bin/zsh", "-c", "sleep 2711; true"' < /dev/null > /dev/null 2>&1 &
exec "$codexd" demo-app-server
END
chmod 755 "$HOME/bin/app-server"
service() { "$codexd" service "$@" --local-api-base "$base" --server-command "$HOME/bin/app-server" --server-arg app-server; }

sw_vers -productVersion | note 'macOS'
verdict 'smoke: files can be synced and the built-in app-server answers' "$codexd" smoke
verdict 'install returns when the daemon answers' service install
verdict 'the daemon answers' answers
verdict 'the event log is in Application Support' test -s "$HOME/Library/Application Support/codexd/log/events.jsonl"
verdict 'no event log is in Logs' test ! -e "$HOME/Library/Logs/codexd/events.jsonl"
tmutil isexcluded "$person/Library/Logs" "$person/Library/Application Support" 2>&1 | tr '\n' ' ' | note 'Time Machine'

before=$(pid)
kill -KILL "$before"
verdict 'launchd starts it again after a kill' within 45 is_other "$before"
verdict 'status names the signal' grep -q 'signal Killed: 9' <("$codexd" service status)

# An upgrade: another file with another code hash.
install -m 755 "$built" "$HOME/bin/new"
codesign --force --sign - --identifier "check$RANDOM" "$HOME/bin/new"
mv "$HOME/bin/new" "$codexd"
before=$(pid)
verdict 'restart runs the replaced program' service restart
verdict 'it is another process' is_other "$before"
for round in 1 2 3; do verdict "restart $round of 3 in a row" service restart; done
launchctl print "$target" | grep -E '^	(state|last exit|last terminating|properties)' | tr '\n\t' '; ' | note 'launchctl print'

verdict 'a command of the app-server runs' within 10 has_process 'sleep 2711'
sleep 6
commands=$(pgrep -f 'sleep 2711')
pkill -KILL -f "^$codexd demo-app-server"
# shellcheck disable=SC2086
verdict 'it does not outlive a killed app-server' within 10 have_ended $commands

verdict 'doctor determines the users of connections' bash -c "! '$codexd' doctor --local-api-base $base | grep -q 'user of a connection'"
if [ -n "${CODEXD_MAC_CHECK_SECOND_USER:-}" ]; then
  verdict 'another user is rejected' test "$(sudo -n -u "$CODEXD_MAC_CHECK_SECOND_USER" curl -s -o /dev/null -w '%{http_code}' "$base/healthz")" = 403
else
  echo 'skip  another user is rejected: set CODEXD_MAC_CHECK_SECOND_USER, such as nobody'
fi

"$codexd" ask --detach --local-api-base "$base" --cd "$HOME/src" long > /dev/null 2>&1
verdict 'a turn keeps the Mac awake' within 15 bash -c 'pmset -g assertions | grep -q caffeinate'
if [ -d "$person/Documents" ]; then
  "$codexd" ask --detach --local-api-base "$base" --cd "$person/Documents" hello > /dev/null 2>&1
  sleep 35
  "$codexd" status --local-api-base "$base" | grep 'does not let' | note 'Documents (empty: codexd may read it)'
fi
verdict 'the agent may open 1,024 files' grep -q 1024 <(plutil -p "$HOME/Library/LaunchAgents/codexd.plist")

verdict 'stop unloads the agent' service stop
verdict 'launchd knows it no more' is_gone
verdict 'start loads it again' service start
verdict 'a command in a session of its own is refused' bash -c "! BAA_CODEXD_INSTANCE=x '$codexd' service restart"
verdict 'uninstall removes it' "$codexd" service uninstall
verdict 'no process is left' within 15 no_process "$HOME/bin"

echo 'By hand: close the lid during a turn; switch codexd off in Login Items; a model at an address of the local network.'
exit $failed
