# Keeps one MPS control daemon. Its standard input is a pipe whose other end the supervisor holds:
# when that closes, whatever the reason (done, panic, a signal, kill -9), the daemon is stopped and
# its folder removed. Arguments: control program, private folder, seconds to wait for it to quit.
# Status: 0 it quit when asked, 3 it had to be killed.
control=$1 folder=$2 patience=$3
# A terminal's Ctrl-C is for the supervisor; a signal sent here ends the wait below.
trap : HUP INT TERM
(
    "$control" -f </dev/null >>"$folder/log/output" 2>&1 &
    echo $! >"$folder/pid.new" && mv "$folder/pid.new" "$folder/pid"
    while :; do
        wait $!
        code=$?
        kill -0 $! 2>/dev/null || break
    done
    echo "$code" >"$folder/exit.new" && mv "$folder/exit.new" "$folder/exit"
) &
read -r _

alive() {
    [ -e "$folder/pid" ] && [ ! -e "$folder/exit" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null
}
# Waits until the daemon has ended, at most $1 seconds.
ended() {
    tries=$(($1 * 20))
    while alive && [ "$tries" -gt 0 ]; do
        sleep 0.05
        tries=$((tries - 1))
    done
    ! alive
}
status=0
# The supervisor may be gone before the daemon was there.
tries=40
while [ ! -e "$folder/pid" ] && [ "$tries" -gt 0 ]; do
    sleep 0.05
    tries=$((tries - 1))
done
if alive; then
    echo "quit -t $patience" | "$control" >>"$folder/log/output" 2>&1 &
    asking=$!
    if ! ended $((patience + 1)); then
        status=3
        daemon=$(cat "$folder/pid")
        # Servers are the daemon's children and would outlive it.
        servers=$(sed -s 's/ (.*) [A-Za-z] / /' /proc/[0-9]*/stat 2>/dev/null |
            while read -r pid parent _; do [ "$parent" = "$daemon" ] && echo "$pid"; done)
        kill -TERM "$daemon" $servers 2>/dev/null
        ended 2 || kill -KILL "$daemon" 2>/dev/null
        kill -KILL $servers 2>/dev/null
        ended 2
    fi
    kill -KILL "$asking" 2>/dev/null
fi
rm -rf -- "$folder"
exit "$status"
