# Runs one program and ends it when whoever holds this script's standard input is gone, kill -9 included.
# Arguments: log file, signal that asks the program to stop, tenths of a second it then gets, folder to remove
# afterwards when the holder is gone ('' for none), program, its arguments.
log=$1 signal=$2 grace=$3 leftover=$4
shift 4
# The log is opened before the program is reported as started, so that nobody removes its folder under it.
exec 3<&0 </dev/null 4>>"$log"
"$@" 3<&- >&4 2>&1 4>&- &
child=$!
echo "$child"
exec >/dev/null 2>&1 4>&-

(
    read -r _ <&3
    # From here on this is the only one left who can clean up: the line below must not be able to end it half-way.
    trap '' TERM
    kill -s "$signal" "$child"
    kill -s CONT "$child"
    while [ "$grace" -gt 0 ] && kill -0 "$child"; do
        sleep 0.1
        grace=$((grace - 1))
    done
    kill -s KILL "$child"
    while kill -0 "$child"; do sleep 0.1; done
    [ -z "$leftover" ] || rm -rf -- "$leftover"
) &
watcher=$!
exec 3<&-

wait "$child"
code=$?
kill -s TERM "$watcher"
exit "$code"
