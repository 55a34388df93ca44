# Keys are replaced while applications use them. Sourced by demo/run.

# Workloads that are restarted for a new key: of which ApiKey, in which namespace; its kind and name.
restarted="shop web-dashboard deployment/web-dashboard
shop web-dashboard statefulset/web-cache
shop web-dashboard daemonset/web-agent"

# One that re-reads its file, and is not.
reloading="shop web-dashboard deployment/web-reports"

# Each rotation that was begun: namespace and name of the ApiKey; and after which lines of callers.log and of outside.log. Each
# old key: its value, never printed.
begun="" begun_after="" old_keys=""

# Who uses a key: of which ApiKey, in which namespace; kind and name of the workload, or `outside`.
users=""

# How many seconds the last rotation took that nothing delayed.
rotation_took=30

# --- Who calls -----------------------------------------------------------------------------------------------------

# Writes what each application says of each of its calls, of each container from its start, as they come and go. Before each
# line: NAMESPACE/WORKLOAD POD/RESTARTS.
follow_callers() {
	local namespace name uid restarts app seen=" "
	trap 'kill $(jobs -p) 2>/dev/null' EXIT
	trap 'exit 0' TERM
	while sleep 0.2; do
		# A StatefulSet's pods come again under their names.
		while read -r namespace name uid restarts app; do
			case $seen in *" $uid.$restarts "*) continue ;; esac
			seen+="$uid.$restarts "
			follow_caller "$namespace" "$name" "$uid.$restarts" "$app" &
		done < <(kubectl get pods -A -l key --field-selector=status.phase=Running --no-headers -o \
			'custom-columns=:metadata.namespace,:metadata.name,:metadata.uid,:status.containerStatuses[0].restartCount,:metadata.labels.app')
	done
}

# One container, from its start to its end: NAMESPACE POD UID.RESTARTS WORKLOAD. A log that breaks off is read again, without what was
# read of it. Where that cannot be any more there are calls that nobody counts: that is a failure as well.
follow_caller() {
	local words="$1/$4 $2/$3" state broken read_at=$SECONDS
	trap 'kill $! 2>/dev/null; exit 0' TERM
	while true; do
		read_log "$1" "$2" "$words" &
		if wait $!; then broken="" read_at=$SECONDS; else broken=yes; fi
		# An API server that does not answer says nothing of the container.
		state=$(kubectl -n "$1" get pod "$2" --ignore-not-found \
			-o 'jsonpath={.metadata.uid}.{.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].state.running.startedAt}') || state=${3}2
		case $state in
		# It runs; or it has ended, which is told some seconds later.
		"$3"2*) ;;
		"$3") [ -n "$broken" ] || return 0 ;;
		*) break ;;
		esac
		sleep 1
	done
	# It is gone, or another one is in its place. What was read to its end a moment ago misses nothing.
	[ $((SECONDS - read_at)) -le 15 ] || echo "$words GET /auth/me: its log ended before it did"
}

# NAMESPACE POD WORDS: what was not read yet of a container's log, with words before each line.
read_log() {
	kubectl -n "$1" logs --follow "$2" | lines_after "$(grep -c "^$3 " "$work/callers.log" || true)" "$3"
}

# COUNT WORDS: copies what comes after so many lines, each at once. A line without an end is none yet.
lines_after() {
	local line number=0
	while IFS= read -r line; do
		number=$((number + 1))
		if [ "$number" -gt "$1" ]; then printf '%s %s\n' "$2" "$line"; fi
	done
}

# A caller outside of the cluster: it has the key in a file of its own. Somebody brings it the new value within seconds,
# unless they forget.
call_from_outside() {
	trap 'kill $(jobs -p) 2>/dev/null' EXIT
	trap 'exit 0' TERM
	bring_the_key
	INTERVAL=500ms LISTEN=127.0.0.1:0 KEY_FILE=$work/outside.key \
		BAGS_BASE_URL=http://127.0.0.1:$port/api/v1 "$consumer_program" &
	while sleep 2; do
		[ -e "$work/forgotten" ] || bring_the_key || true
	done
}

bring_the_key() {
	(umask 077 && value shop web-dashboard-bags BAGS_API_KEY >"$work/outside.new") && mv "$work/outside.new" "$work/outside.key"
}

calls_made() { cat "$work/callers.log" "$work/outside.log" | grep -c 'GET /auth/me: ' || true; }

calls_failed() {
	cat "$work/callers.log" "$work/outside.log" | grep 'GET /auth/me: ' | grep -vc -e ': 200$' -e ': stopped$' || true
}

# So often a user of a key was answered, after so many lines of the logs: NAMESPACE WORKLOAD CALLERS_LOG OUTSIDE_LOG.
answers_to() {
	case $2 in
	outside) tail -n "+$(($4 + 1))" "$work/outside.log" | grep -c 'GET /auth/me: 200$' || true ;;
	*) tail -n "+$(($3 + 1))" "$work/callers.log" | grep -c "^$1/${2#*/} .*GET /auth/me: 200\$" || true ;;
	esac
}

# Each of the users of a key calls twice a second, and no rotation is over in ten seconds. A job calls when it runs.
enough_answers=10

was_answered() { [ "$(answers_to "$1" "$2" 0 0)" -ge "$enough_answers" ]; }

# Every user of this ApiKey's key was answered since the last rotation began, or nobody looked: NAMESPACE NAME.
expect_answers() {
	local namespace key workload inside outside found
	read -r inside outside <<<"$(sed -n "s/^$1 $2 //p" <<<"$begun_after" | tail -n 1)"
	while read -r namespace key workload; do
		if [ "$namespace $key" != "$1 $2" ] || [ "${workload%%/*}" = cronjob ]; then continue; fi
		found=$(answers_to "$namespace" "$workload" "$inside" "$outside")
		[ "$found" -ge "$enough_answers" ] || fail "$workload in $namespace was answered $found times in a rotation of $key"
	done <<<"$users"
}

start_callers() {
	local workload
	: >"$work/callers.log"
	if [ "$size" = node ]; then
		kubectl -n shop create configmap bags-settings \
			--from-literal=BAGS_BASE_URL="$(value shop web-dashboard-bags BAGS_BASE_URL)" >/dev/null
		kubectl apply -f demo/callers.yaml >/dev/null
		for workload in deployment/web-dashboard deployment/web-reports statefulset/web-cache daemonset/web-agent; do
			show -n shop rollout status "$workload" --timeout=90s
		done
		start callers follow_callers
		await 30 "the applications call Bags" grep -q 'GET /auth/me: 200$' "$work/callers.log"
		note_templates "$restarted"
		note_templates "$reloading" 0
		users+=$restarted$'\n'$reloading$'\n'
	fi
	consumer_program=$(tests/cluster/run which consumer)
	start outside call_from_outside
	users+=$'shop web-dashboard outside\n'
	await 30 "the caller outside of the cluster calls Bags" grep -q 'GET /auth/me: 200$' "$work/outside.log"
}

# --- Restarts ------------------------------------------------------------------------------------------------------

# How often the pod template of a workload was changed: NAMESPACE WORKLOAD. Nobody scales one here.
template() { kubectl -n "$1" get "$2" -o 'jsonpath={.metadata.generation}'; }

# Remembers how often the pod templates of these workloads were changed before, and how often each rotation of their ApiKey
# has to change them: LIST [TIMES].
note_templates() {
	local namespace key workload
	while read -r namespace key workload; do
		printf '%s %s %s %s %s\n' "$namespace" "$key" "$workload" "${2:-1}" "$(template "$namespace" "$workload")" >>"$work/templates"
	done <<<"$1"
}

# Of workloads that are gone: so many restarts there were, and had to be.
earlier_restarts=0 earlier_expected=0

# Sets `restarts`, and `expected_restarts`: each workload has to be restarted once for each rotation of its ApiKey, and one that
# re-reads its file never.
count_restarts() {
	local namespace key workload each before times found
	restarts=$earlier_restarts expected_restarts=$earlier_expected
	[ -e "$work/templates" ] || return 0
	while read -r namespace key workload each before; do
		times=$(($(grep -cxF "$namespace $key" <<<"$begun" || true) * each))
		found=$(($(template "$namespace" "$workload") - before))
		expect "restarts of $workload in $namespace" "$found" "$times"
		restarts=$((restarts + found)) expected_restarts=$((expected_restarts + times))
	done <"$work/templates"
}

# --- A rotation ----------------------------------------------------------------------------------------------------

# The rotation that was asked for with this token has ended: NAMESPACE NAME TOKEN.
rotated() {
	[ "$(kubectl -n "$1" get bkey "$2" -o 'jsonpath={.status.handledRotate}')" = "$3" ] &&
		[ "$(condition "$1" "$2" OldKeyRevoked status)" = True ]
}

has_another_value() { [ "$(value "$1" "$2" "$3")" != "$4" ]; }

# For quick rotations: NAMESPACE NAME.
shorten_overlap() {
	kubectl -n "$1" patch bkey "$2" --type=merge -p '{"spec":{"rotation":{"minOverlap":"3s","quietFor":"3s"}}}' >/dev/null
}

# Asks for a rotation: NAMESPACE NAME TOKEN SECRET FIELD. Sets `old`. Shows it, unless `ask` is quietly.
begin_rotation() {
	old=$(value "$1" "$4" "$5")
	values+=$old$'\n' old_keys+=$old$'\n' begun+="$1 $2"$'\n'
	begun_after+="$1 $2 $(wc -l <"$work/callers.log") $(wc -l <"$work/outside.log")"$'\n'
	"${ask:-show}" -n "$1" annotate bkey "$2" "keys.bags.fm/rotate=$3" --overwrite
}

# Waits for the end of a rotation: SECONDS WHAT NAMESPACE NAME TOKEN.
end_rotation() {
	await "$1" "$2" rotated "$3" "$4" "$5"
	expect_answers "$3" "$4"
}

quietly() { kubectl "$@" >/dev/null; }

# The leading operator dies at a random moment between the begin of a rotation and its end, where it is a pod.
kill_sometime() {
	local phase marked
	sleep "$((RANDOM % rotation_took)).$((RANDOM % 10))"
	# The one that holds the Lease may have died just before.
	await 30 "the leading operator is killed" kill_leader
	# Nobody writes it until another one leads.
	read -r phase marked <<<"$(kubectl -n shop get bkey web-dashboard \
		-o 'jsonpath={.status.phase} {range .status.switch.marked[*]}x{end}')"
	if [ "$phase" = Restarting ]; then phase+=" with ${#marked} of 3 workloads marked"; fi
	printf '%s\n' "$phase" >>"$work/kills"
	say "  (the leading operator was killed, in phase $phase)"
}

# In which phases of web-dashboard the leading operator was killed, so many times each.
kills_by_phase() {
	local times phase
	[ -e "$work/kills" ] || return 0
	while read -r times phase; do printf '%s: %s\n' "$phase" "$times"; done < <(sort "$work/kills" | uniq -c)
}

tell_kills() {
	local line
	while IFS= read -r line; do say "  kills of the leading operator in phase $line"; done < <(kills_by_phase)
}

# Inside the node, where one process after the other may be a pod's program. Not everybody has pkill.
# shellcheck disable=SC2016 # expanded there
kill_program='for process in /proc/[0-9]*; do
	if [ "$(cat "$process/comm" 2>/dev/null)" = bags-operator ] && grep -qzx "HOSTNAME=$1" "$process/environ"; then
		kill -KILL "${process#/proc/}"
		exit
	fi
done
exit 1'

kill_leader() {
	local leader
	leader=$(kubectl -n bags-system get lease bags-operator -o 'jsonpath={.spec.holderIdentity}')
	tests/cluster/run exec --state "$work/cluster" -- sh -c "$kill_program" sh "${leader%_*}"
}

# rotate NUMBER: one rotation of web-dashboard, from its annotation to the death of the old key.
rotate() {
	local killer="" since=$SECONDS
	begin_rotation shop web-dashboard "number-$1" web-dashboard-bags BAGS_API_KEY
	if [ "$size" = node ] && [ $(($1 % 3)) = 0 ]; then
		kill_sometime 9>&- &
		killer=$!
	fi
	# A creation in whose middle the operator died is judged by the next one, and tried again a minute later.
	await 180 "the Secret has the new key" has_another_value shop web-dashboard-bags BAGS_API_KEY "$old"
	if [ "$1" = 1 ]; then
		expect "answer to the old key, which pods still hold" "$(answer_to "$old")" 200
		say "  $(condition shop web-dashboard Ready reason): $(condition shop web-dashboard Ready message)"
		show get bkey -n shop web-dashboard -o wide
		if [ "$size" = node ]; then await 120 "each workload has an event of its restart" restarts_are_told; fi
	fi
	watch_rotation 240 "the old key is revoked" rotated shop web-dashboard "number-$1"
	expect_answers shop web-dashboard
	if [ -n "$killer" ]; then
		wait "$killer" || fail "the leading operator could not be killed"
	else
		rotation_took=$((SECONDS - since + 1))
	fi
	expect "answer to the old key" "$(answer_to "$old")" 401
	expect "answer to the new key" "$(answer_to "$(value shop web-dashboard-bags BAGS_API_KEY)")" 200
	values+=$(value shop web-dashboard-bags BAGS_API_KEY)$'\n'
}

# Of each workload that is restarted, its own events tell so, and the metrics count it. Before an operator is killed: with
# it goes what it has counted.
restarts_are_told() {
	local workload
	while read -r _ _ workload; do
		[ -n "$(kubectl -n shop get events -o name --field-selector "reason=Restarted,involvedObject.name=${workload#*/}")" ] || return 1
	done <<<"$restarted"
	[ "$(metrics | sed -n 's/^bags_operator_workload_restarts_total{.*} //p' | awk '{sum += $1} END {print sum + 0}')" = 3 ] &&
		[ "$(metrics | sed -n 's/^bags_operator_rotations_total{outcome="Begun"} //p' | awk '{sum += $1} END {print sum + 0}')" = 1 ]
}

# As await. Meanwhile it tells how it goes: on a terminal a line that changes, else one for each phase.
watch_rotation() {
	local limit=$1 what=$2 begin=$SECONDS calls before last phase=none now line
	shift 2
	calls=$(calls_made) before=$SECONDS
	until "$@" >/dev/null 2>&1; do
		[ $((SECONDS - begin)) -lt "$limit" ] || fail "$what: not within $limit s"
		all_running
		sleep 1
		last=$phase
		phase=$(kubectl -n shop get bkey web-dashboard -o 'jsonpath={.status.phase}')
		now=$(calls_made)
		if [ $((SECONDS - before)) -gt 0 ]; then
			line="  $(((now - calls) / (SECONDS - before))) calls a second, $(calls_failed) failed; $phase; $(last_uses shop web-dashboard)"
			calls=$now before=$SECONDS
			if [ -t 1 ]; then printf '\r%s\033[K' "$line"; elif [ "$phase" != "$last" ]; then say "$line"; fi
		fi
	done
	if [ -t 1 ]; then printf '\r\033[K'; fi
}

# When the active keys of an ApiKey were last used, as Bags shows it: NAMESPACE NAME.
last_uses() {
	local prefix
	prefix=$(kubectl -n "$1" get bkey "$2" -o 'jsonpath={.status.current.keyName}')
	request GET /sandbox/keys | grep -o '{[^{}]*}' | grep "\"name\":\"${prefix%-*}-" | { grep '"state":"active"' || true; } |
		sed 's/.*"lastUsedAt":"[^T]*T\([0-9:]*\).*/\1/; s/.*"lastUsedAt":null.*/never/' |
		awk '{keys = keys (NR > 1 ? ", new key " : "") $0} END {print (NR > 1 ? "old key" : "key") " last used " keys}'
}

# rotations COUNT: so many of web-dashboard, one after the other.
rotations() {
	local number begin=$SECONDS
	shorten_overlap shop web-dashboard
	for number in $(seq "$1"); do rotate "$number"; done
	show -n shop describe bkey web-dashboard
	show get events -n shop --field-selector reason=Restarted
	tell_kills
	say "-- $1 rotations: $((SECONDS - begin)) s"
}

# How many old keys Bags does not refuse.
old_keys_alive() {
	local key alive=0
	while read -r key; do
		if [ "$(answer_to "$key")" != 401 ]; then alive=$((alive + 1)); fi
	done < <(grep . <<<"$old_keys")
	echo "$alive"
}

expect_ledgers_to_be_right() { expect "ids of the keys in the ledgers" "$(ids_in_ledgers)" "$(ids_at_bags)"; }

# What all rotations came to, in one line.
tell_rotations() {
	local alive count namespace workload
	while read -r namespace _ workload; do
		if [ -n "$namespace" ]; then await 150 "$workload in $namespace calls Bags" was_answered "$namespace" "$workload"; fi
	done <<<"$users"
	alive=$(old_keys_alive)
	count=$(grep -c . <<<"$begun")
	count_restarts
	say "rotation: $count rotations, $(calls_made) requests, $(calls_failed) failed, $restarts restarts, $expected_restarts expected, $alive old keys alive"
	expect "failed calls of the applications" "$(calls_failed)" 0
	expect "restarts" "$restarts" "$expected_restarts"
	expect "old keys that are alive" "$alive" 0
	expect "active keys at Bags" "$(active_keys)" 5
	expect_ledgers_to_be_right
}

ids_in_ledgers() {
	kubectl get bacct -o 'jsonpath={range .items[*]}{range .status.slots[*]}{.keyId}{"\n"}{end}{end}' | { grep . || true; } | sort
}

ids_at_bags() {
	request GET /sandbox/keys | grep -o '{[^{}]*}' | { grep '"state":"active"' || true; } | sed 's/.*"id":"\([^"]*\)".*/\1/' | sort
}
