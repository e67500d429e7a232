#!/bin/sh
# A stub of codexd for the tests of the test support: it starts, starts a child process, and stops.
# It is called like codexd, in the repository root; STUB=refuse makes it fail.
if [ "$STUB" = refuse ]; then
  echo "the stub refuses to start" >&2
  exit 3
fi
mkdir -p logs/codexd
printf '{"seq": 1}\n{"seq": 2}\n' > logs/codexd/events-1.jsonl
printf '{"seq": 3}\n{"se' > logs/codexd/events.jsonl
sleep 300 > /dev/null &
trap 'kill "$!"; printf "{\n  \"stopped\": true\n}\n"; exit 7' TERM
printf '{\n  "service": {\n    "resolvedBaseUrl": "http://127.0.0.1:9/"\n  },\n'
printf '  "home": "%s",\n  "arguments": "%s",\n  "environment": "%s"\n}\n' "$HOME" "$*" "$(env | cut -d= -f1 | sort | tr '\n' ' ')"
wait
