#!/bin/sh
# Stands in for `framehook-worker` and `framehook plugin-host`: an uploaded file holds the verdict about itself. It is its
# own machine code, behind which its signature of 64 characters comes.
case "$1" in
    plugin-host) verb=$2 file=$3 ;;
    *) verb=$1 file=$2 ;;
esac
case "$verb" in
    compile)
        case "$(cat "$file")" in
            crash) kill -11 $$ ;;
            core) echo '{"findings": [{"code": "core_module", "message": "this is a core module"}]}'; exit 3 ;;
            *) cat "$file" ;;
        esac
        ;;
    describe) head -c -64 "$file" ;;
    validate-config)
        config=$(cat)
        case "$config" in
            *trap*) kill -9 $$ ;;
            *slow*) exec tail -f /dev/null ;;
            *'"min_score":3'*) echo '{"problems": [{"path": "/min_score", "message": "3 is greater than the maximum of 1"}]}' ;;
            *refuse*) echo '{"problems": [{"path": "/labels/1", "message": "is refused by the plugin"}]}' ;;
            *) echo '{"problems": []}' ;;
        esac
        ;;
    preview)
        case "$(cat)" in
            *'"pad":1,'*) kill -11 $$ ;;
            *'"pad":2,'*) echo '{"findings": [{"code": "no_such_frame", "message": "there is none"}]}' ;;
            *'"pad":3,'*) echo '{"findings": [{"code": "not_decodable", "message": "it is damaged"}]}' ;;
            *'"pad":4,'*) echo 'nothing' ;;
            *) printf '\377\330a picture' ;;
        esac
        ;;
    *)
        case "$(cat "$file")" in
            crash) kill -11 $$ ;;
            slow*) exec tail -f /dev/null ;;
            *) cat "$file" ;;
        esac
        ;;
esac
