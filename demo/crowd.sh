# Many people at once for the last slots of an account. Sourced by demo/run; needs a node.

open_crowd() {
	open_account crowd user-2
	mkdir -p "$work/crowd"
}

# person NAME: applies an ApiKey until there is a clear answer, which is kept.
person() {
	local said begin=$SECONDS
	until
		said=$(crowd_key "$1" | kubectl create --request-timeout=30s -f - 2>&1) ||
			grep -q "has no slot for another key" <<<"$said"
	do
		printf '%s\n' "$said" >>"$work/crowd/unclear"
		# Nobody else applies this name: an earlier try was stored, and its answer was lost.
		if grep -q "(AlreadyExists)" <<<"$said"; then
			said="$said: it was created"
			break
		fi
		[ $((SECONDS - begin)) -lt 120 ] || fail "$1 was neither admitted nor refused within 120 s: $said"
		sleep 0.5
	done
	printf '%s\n' "$said" >"$work/crowd/$1"
}

# crowd ROUND COUNT: so many people at once.
crowd() {
	local number person people=()
	for number in $(seq "$2"); do
		person "person-$1-$number" 9>&- &
		people+=($!)
	done
	for person in "${people[@]}"; do wait "$person"; done
}

slots_of_crowd() { kubectl get bacct crowd -o "jsonpath={range .status.slots[?(@.state==\"$1\")]}x{end}"; }

somebody_is_in() { [ -n "$(slots_of_crowd Reserved)$(slots_of_crowd Creating)$(slots_of_crowd Live)" ]; }

no_empty_place() {
	local reserved creating
	reserved=$(slots_of_crowd Reserved) && creating=$(slots_of_crowd Creating) && [ -z "$reserved$creating" ]
}

available_to_crowd() { kubectl get bacct crowd -o 'jsonpath={.status.capacity.available}'; }

four_are_free() { [ "$(available_to_crowd)" = 4 ]; }

# An ApiKey for the crowd's account: NAME.
crowd_key() { apikey crowd "$1" production "$1" | sed 's/{name: main}/{name: crowd}/'; }

# So many ApiKeys in one manifest: COUNT.
crowd_manifest() {
	local number
	for number in $(seq "$1"); do crowd_key "applied-$number" && echo ---; done
}

empty_crowd() {
	kubectl -n crowd wait --for=condition=Ready apikeys --all --timeout=60s >/dev/null
	kubectl -n crowd annotate bkey --all keys.bags.fm/delete-now=true >/dev/null
	kubectl -n crowd delete bkey --all --timeout=90s >/dev/null
}

# What one person does with one kubectl, before the crowds come.
one_by_one() {
	local said
	say "" && say "\$ kubectl apply --dry-run=server -f -   # six ApiKeys, where four slots are free"
	crowd_manifest 6 | kubectl apply --dry-run=server -f - 2>&1 | tee -a "$shown"
	expect "slots available after six dry runs" "$(available_to_crowd)" 4
	say "" && say "\$ kubectl create -f -   # two ApiKeys with metadata.generateName"
	said=$({ crowd_key web && echo --- && crowd_key jobs; } | sed 's/{name: \(web\|jobs\), /{generateName: \1-, /' |
		kubectl create -f - 2>&1) || fail "two with generated names: $said"
	say "$said"
	await 60 "two slots are taken" two_are_free
	empty_crowd
	await 60 "four slots are free again" four_are_free
	say "" && say "The account has ten slots, of which one is kept. \$ kubectl apply -f -   # twelve ApiKeys"
	show patch bacct crowd --type=merge -p '{"spec":{"limit":10,"rotationReserve":1}}'
	said=$(crowd_manifest 12 | kubectl apply -f - 2>&1) && fail "twelve were admitted: $said"
	say "$said"
	expect "ApiKeys that were created" "$(grep -c ' created$' <<<"$said")" 9
	expect "denials with their numbers" "$(grep -c 'has no slot for another key: 9 of 10 in use' <<<"$said")" 3
	empty_crowd
	show patch bacct crowd --type=merge -p '{"spec":{"limit":4,"rotationReserve":0}}'
	await 60 "four slots are free again" four_are_free
}

two_are_free() { [ "$(available_to_crowd)" = 2 ]; }

# Inside the node, where one process after the other may be a pod's program. Not everybody has pkill.
# shellcheck disable=SC2016 # expanded there
kill_one='for process in /proc/[0-9]*; do
	if [ "$(cat "$process/comm" 2>/dev/null)" = bags-operator ]; then
		kill -KILL "${process#/proc/}"
		exit
	fi
done
exit 1'

# So many times.
crowds() {
	local round crowd came admitted lost
	open_crowd >/dev/null
	one_by_one
	admitted=0 lost=0
	for round in $(seq "$1"); do
		crowd "$round" 50 &
		crowd=$!
		if [ $((round % 2)) -eq 0 ]; then
			await 30 "the first of the crowd is admitted" somebody_is_in
			tests/cluster/run exec --state "$work/cluster" -- sh -c "$kill_one"
		fi
		wait "$crowd"
		# A place that was kept by a pod that died before it could say so comes free, and somebody else gets it. What a leader was
		# making when it died is judged by the next one, and tried again a minute later.
		await 180 "no place is kept for nobody" no_empty_place
		# Where nobody was killed, four of the fifty are in.
		if [ $((round % 2)) -eq 0 ] && [ "$(available_to_crowd)" != 0 ]; then
			crowd "$round-late" 8
		fi
		came=$({ grep -l ' created$' "$work/crowd/person-$round-"* || true; } | wc -l | tr -d ' ')
		admitted=$((admitted + came))
		empty_crowd
		# What is not free by now is lost, and the line below says so.
		within 60 four_are_free || true
		lost=$((lost + 4 - $(available_to_crowd)))
		say "  round $round: $came of 50 admitted"
		expect "admitted in round $round" "$came" 4
	done
	say "admission: $1 rounds, $admitted admitted, $((4 * $1)) expected, $lost slots lost"
	expect "lost slots" "$lost" 0
	leave_crowd
	prove_every_key 10
}

# The namespace controller deletes the RoleBinding with the first: the operator may read nothing in there any more.
leave_crowd() {
	local last
	say "" && say "A namespace is deleted, with an ApiKey in it; the operator's rights in it go first:"
	crowd_key last | kubectl create -f - >/dev/null
	kubectl -n crowd wait --for=condition=Ready apikey/last --timeout=60s >/dev/null
	last=$(value crowd last BAGS_API_KEY)
	values+=$last$'\n'
	show delete namespace crowd --timeout=180s
	expect "answer to its key" "$(answer_to "$last")" 401
	await 60 "four slots are free again" four_are_free
}
