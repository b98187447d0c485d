#!/bin/sh
# `plugin-host compile FILE`: a plugin is a text, compiled by writing it in upper case. What is asked for is written down
# beside the plugin.
[ "$1 $2" = "plugin-host compile" ] || exit 64
text=$(cat "$3")
echo "$$ $text" >>"$(dirname "$3")/journal"
case "$text" in
    refused) echo '{"findings": [{"code": "a", "message": "first"}, {"code": "b", "message": "second"}]}'; exit 3 ;;
    unclear) echo 'no findings'; exit 3 ;;
    failed) echo "cannot read $3" >&2; exit 1 ;;
    died) kill -9 $$ ;;
    hang) exec tail -f /dev/null ;;
    empty) ;;
    *) echo "$text" | tr a-z A-Z ;;
esac
