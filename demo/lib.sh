# What demo/run and demo/cluster share: words for people, a cluster, programs beside it, and an orderly end.
# Sourced by bash (3.2 or later); the sourcing script has `set -euo pipefail`.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/bags-demo.XXXXXX")
shown=$work/shown.txt
running=()

# --- Words ---------------------------------------------------------------------------------------------------------

# Prints, and keeps what was printed: at the end it is searched for values of keys.
say() { printf '%s\n' "$*" | tee -a "$shown"; }

chapter() { say "" && say "" && say "== $*"; }

# What is said at the end is heard also from inside of `within`, which is deaf to all else.
exec 7>&1

fail() {
	{ say "" && say "FAILED: $*"; } >&7
	exit 1
}

# Runs kubectl as a person would, and prints the command with its output.
show() {
	say "" && say "\$ kubectl$(quoted "$@")"
	kubectl "$@" 2>&1 | tee -a "$shown"
}

# The same for helm.
show_helm() {
	say "" && say "\$ helm$(quoted "$@")"
	"$helm_program" "$@" 2>&1 | tee -a "$shown"
}

# Words as they can be pasted into a shell.
quoted() {
	local word
	for word; do
		case $word in
		*[!A-Za-z0-9_./:=,-]*) printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
	local limit=$1 what=$2
	shift 2
	within "$limit" "$@" || fail "$what: not within $limit s"
}

# within SECONDS COMMAND...: whether the command succeeds by then.
within() {
	local limit=$1 begin=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		[ $((SECONDS - begin)) -lt "$limit" ] || return 1
		all_running
		sleep 0.2
	done
}

# expect WHAT ACTUAL EXPECTED
expect() {
	[ "$2" = "$3" ] || fail "$1: expected \"$3\", found \"$2\""
}

# timed NAME COMMAND...: for what takes long.
timed() {
	local name=$1 begin=$SECONDS
	shift
	say "-- $name ..."
	"$@" || fail "$name: see above"
	say "-- $name: $((SECONDS - begin)) s"
}

# --- Programs ------------------------------------------------------------------------------------------------------

# start NAME COMMAND...: in the background, with output in NAME.log, in a process group of its own: Ctrl-C is for this
# script, which ends the programs in the right order. Descriptor 9 stays here: its end tells the others that we are gone. So
# does 7: whoever reads what is said here is not to wait for them.
start() {
	local name=$1
	shift
	set -m
	"$@" >"$work/$name.log" 2>&1 <"$work/alive" 7>&- 9>&- &
	set +m
	running+=("$name:$!")
	printf '%s\n' "$!" >>"$work/pids"
}

all_running() {
	local program
	for program in "${running[@]}"; do
		kill -0 "${program#*:}" 2>/dev/null || fail "${program%%:*} ended by itself; its last words are in $work/${program%%:*}.log:
$(tail -n 5 "$work/${program%%:*}.log")"
	done
}

# Ends the program that was started last; its exit status is the program's.
stop_last() {
	local last=$((${#running[@]} - 1)) code=0
	local pid=${running[$last]#*:}
	unset "running[$last]"
	kill -TERM "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || code=$?
	return "$code"
}

# Ends all programs, the last one first.
stop_all() {
	while [ "${#running[@]}" -gt 0 ]; do stop_last || true; done
	rm -f "$work/pids"
}

# Should this script be killed, its programs end and its files go: a pipe that only it holds open is closed then. After an
# orderly end there is no list of programs any more, and nothing to do.
guard() {
	mkfifo "$work/alive"
	: >"$work/pids"
	(
		trap '' INT TERM HUP
		read -r _ <"$work/alive" || true
		[ -e "$work/pids" ] || exit 0
		while read -r pid; do kill -TERM "$pid" || true; done <"$work/pids"
		rm -rf "$work"
	) >/dev/null 2>&1 7>&- &
	exec 9>"$work/alive"
}

leave() {
	local code=$?
	trap '' INT TERM HUP
	stop_all
	# 130: a person ended it. Logs are for those who ask why it failed.
	if [ "$code" -ne 0 ] && [ "$code" -ne 130 ] && ls "$work"/*.log >/dev/null 2>&1; then
		printf 'The logs are in %s\n' "$work" >&7
	else
		rm -rf "$work"
	fi
	exit "$code"
}

# --- The cluster ---------------------------------------------------------------------------------------------------

# The size asked for, or the largest that this user and machine can have.
cluster_size() {
	local asked=$1
	if [ "$(id -u)" -eq 0 ] && [ "$(uname -s)" = Linux ]; then
		printf '%s\n' "${asked:-node}"
	elif [ "$asked" = node ]; then
		return 1
	else
		printf 'control-plane\n'
	fi
}

# boot SIZE FORWARD: sets `ready` (one line of JSON) and exports KUBECONFIG.
boot() {
	start cluster "$root/tests/cluster/run" up --size "$1" --state "$work/cluster" ${2:+--forward "$2"}
	await 120 "the cluster is ready (see $work/cluster.log)" grep -q '^{' "$work/cluster.log"
	ready=$(grep '^{' "$work/cluster.log")
	KUBECONFIG=$(member kubeconfig)
	export KUBECONFIG
	kubectl_program=$(member kubectl) helm_program=$(member helm)
}

# A member of `ready` that is a string or a number.
member() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" <<<"$ready"; }

kubectl() { "$kubectl_program" "$@"; }
