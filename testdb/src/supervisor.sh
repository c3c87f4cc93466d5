# Creates a cluster, runs it while standard input is open, and then removes it. Standard input is a pipe from the
# program that uses the server. The pipe closes when that program ends, however it ends.
#
# Arguments: the folder of the server binaries; the port; the name of the superuser; the path of pg_basebackup to create
# a standby, or else an empty string; then settings (name=value).
#
# Standard input: one line with the superuser's password; for a standby, one line with the URL of its primary; then one
# command per line: "crash" (kill the server and start it again), "kill", "start" or "promote".
#
# Standard output: "ready" once the server has started, or the log if it does not start. Then, for each command, "ready"
# once it has been carried out, or the command and the last line of the log if it failed.

# No signal may end this script before it has stopped the server. SIGPIPE comes if the program ends before it reads
# "ready".
trap '' INT TERM HUP QUIT PIPE
umask 077
binaries=$1
port=$2
superuser=$3
pg_basebackup=$4
shift 4
read -r password
[ -z "$pg_basebackup" ] || read -r primary_url

folder=$(mktemp -d "${TMPDIR:-/tmp}/sparc-postgresql-XXXXXX") || exit 1
cd "$folder" || exit 1
printf '%s\n' "$password" >password

options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$folder"
for setting in "$@"; do
  options="$options -c $setting"
done

start_once() {
  "$binaries/pg_ctl" start -D data -w -t 60 -l log -o "$options" >>log 2>&1
}

create_cluster() {
  if [ -n "$pg_basebackup" ]; then
    "$pg_basebackup" -D data -d "$primary_url" -R -X stream -c fast --no-sync >log 2>&1
    return
  fi
  "$binaries/initdb" -D data -U "$superuser" --pwfile=password --auth=password --encoding=UTF8 --no-locale --no-sync \
    --no-instructions >log 2>&1
}

kill_server() {
  read -r postmaster_pid <data/postmaster.pid
  kill -9 "$postmaster_pid"
}

# Retries, because the remaining backends of a killed server keep its shared memory in use until they notice that the
# postmaster has ended, and the server does not start before that.
start_with_retries() {
  attempts=0
  until start_once; do
    attempts=$((attempts + 1))
    [ "$attempts" -lt 100 ] || return 1
    sleep 0.1
  done
}

run_command() {
  case $1 in
    crash) kill_server && start_with_retries ;;
    kill) kill_server ;;
    start) start_with_retries ;;
    promote) "$binaries/pg_ctl" promote -D data -w >>log 2>&1 ;;
    *) echo 'unknown command' >>log && return 1 ;;
  esac
}

if create_cluster && start_once; then
  echo ready
  while read -r command; do
    if run_command "$command"; then
      echo ready
    else
      echo "$command: $(tail -n 1 log)"
    fi
  done
  # An immediate stop, because the data is removed anyway.
  "$binaries/pg_ctl" stop -D data -m immediate -w >>log 2>&1
else
  cat log
fi
cd /
rm -rf "$folder"
