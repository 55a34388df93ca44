# A key is replaced while applications use it. Sourced by demo/run.

# Applications that read the key of examples/web-dashboard.yaml: kind and name.
callers="deployment/web-dashboard deployment/web-reports statefulset/web-cache daemonset/web-agent"
# Those that the operator restarts; web-reports re-reads its file.
restarted="deployment/web-dashboard statefulset/web-cache daemonset/web-agent"

# Writes what each application says of each of its calls, of each pod from its start, as pods come and go.
follow_callers() {
	local name seen=" "
	trap 'kill $(jobs -p) 2>/dev/null' EXIT
	trap 'exit 0' TERM
	while sleep 0.2; do
		for name in $(kubectl -n shop get pods -l key=web-dashboard --field-selector=status.phase=Running \
			-o 'jsonpath={.items[*].metadata.name}'); do
			case $seen in *" $name "*) continue ;; esac
			seen+="$name "
			kubectl -n shop logs --follow "$name" &
		done
	done
}

calls_made() { grep -c 'GET /auth/me: ' "$work/callers.log" || true; }

calls_failed() { grep 'GET /auth/me: ' "$work/callers.log" | grep -vc -e ': 200$' -e ': stopped$' || true; }

# How often the pod templates of the restarted workloads were changed, all together.
templates() {
	local workload sum=0
	for workload in $restarted; do
		sum=$((sum + $(kubectl -n shop get "$workload" -o 'jsonpath={.metadata.generation}')))
	done
	echo "$sum"
}

has_another_value() { [ "$(value shop web-dashboard-bags BAGS_API_KEY)" != "$1" ]; }

# The rotation that was asked for with this token has ended.
rotated() {
	[ "$(kubectl -n shop get bkey web-dashboard -o 'jsonpath={.status.handledRotate}')" = "$1" ] &&
		[ "$(condition shop web-dashboard OldKeyRevoked status)" = True ]
}

# rotate TOKEN: one rotation from its annotation to the death of the old key.
rotate() {
	local old
	old=$(value shop web-dashboard-bags BAGS_API_KEY)
	values+=$old$'\n'
	show -n shop annotate bkey web-dashboard "keys.bags.fm/rotate=$1" --overwrite
	await 60 "the Secret has the new key" has_another_value "$old"
	expect "answer to the old key, which pods still hold" "$(answer_to "$old")" 200
	say "  $(condition shop web-dashboard Ready reason): $(condition shop web-dashboard Ready message)"
	if [ "$1" = first ]; then
		show get bkey -n shop web-dashboard -o wide
	fi
	await 240 "the old key is revoked" rotated "$1"
	expect "answer to the old key" "$(answer_to "$old")" 401
	expect "answer to the new key" "$(answer_to "$(value shop web-dashboard-bags BAGS_API_KEY)")" 200
	values+=$(value shop web-dashboard-bags BAGS_API_KEY)$'\n'
}

# rotations COUNT: so many, one after the other, under the traffic of all applications where there is a node.
rotations() {
	local number begin=$SECONDS before=0 workloads=0 alive
	if [ "$size" = node ]; then
		kubectl -n shop create configmap bags-settings \
			--from-literal=BAGS_BASE_URL="$(value shop web-dashboard-bags BAGS_BASE_URL)" >/dev/null
		kubectl apply -f demo/callers.yaml >/dev/null
		for workload in $callers; do show -n shop rollout status "$workload" --timeout=90s; done
		start callers follow_callers
		await 30 "the applications call Bags" grep -q 'GET /auth/me: 200$' "$work/callers.log"
		before=$(templates)
		workloads=$(wc -w <<<"$restarted")
	fi
	kubectl -n shop patch bkey web-dashboard --type=merge \
		-p '{"spec":{"rotation":{"minOverlap":"3s","quietFor":"3s"}}}' >/dev/null
	for number in $(seq "$1"); do
		rotate "$([ "$number" = 1 ] && echo first || echo "number-$number")"
	done
	show -n shop describe bkey web-dashboard
	show get events -n shop --field-selector reason=Restarted
	alive=$(($(active_keys) - 5))
	if [ "$size" = node ]; then
		say "rotation: $1 rotations, $(calls_made) requests, $(calls_failed) failed, $(($(templates) - before)) restarts, $(($1 * workloads)) expected, $alive old keys alive"
		expect "failed calls of the applications" "$(calls_failed)" 0
		expect "restarts" "$(($(templates) - before))" "$(($1 * workloads))"
	fi
	expect "old keys that are alive" "$alive" 0
	say "-- $1 rotations: $((SECONDS - begin)) s"
}
