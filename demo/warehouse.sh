# Rotations that do not begin before somebody has decided, one that somebody pauses, and one that turns back, each of an
# application of demo/warehouse.yaml. Sourced by demo/run; needs a node.

# What demo/warehouse.yaml has, as `restarted` names it.
in_warehouse="warehouse stock-sync deployment/stock-sync
warehouse door-scanner daemonset/door-scanner
warehouse shelf-web deployment/shelf-web
warehouse price-tags deployment/price-tags"

open_warehouse() {
	local workload
	open_account warehouse user-3 >/dev/null
	kubectl -n warehouse create configmap price-tags-settings --from-literal=BAGS_BASE_URL="$(base_url)" >/dev/null
	show apply -f demo/warehouse.yaml
	for workload in stock-sync shelf-web price-tags; do
		show -n warehouse rollout status "deployment/$workload" --timeout=90s
	done
	# kubectl knows no rollout where people delete the pods.
	show -n warehouse wait daemonset/door-scanner --for=jsonpath='{.status.numberReady}'=1 --timeout=90s
	users+=$in_warehouse$'\n'
}

# NAME TOKEN: sets `old`.
ask_warehouse() { begin_rotation warehouse "$1" "$2" "$1" BAGS_API_KEY; }

# Its Secret holds this value: NAME VALUE.
warehouse_holds() { [ "$(value warehouse "$1" BAGS_API_KEY)" = "$2" ]; }

# A rotation has not begun, and says why: NAME WORDS.
blocked_by() { has_reason warehouse "$1" Rotating RotationBlocked && says warehouse "$1" Rotating "$2"; }

# What people read about an ApiKey: NAME TYPE.
tell_condition() {
	say "  $1: $2=$(condition warehouse "$1" "$2" status), $(condition warehouse "$1" "$2" reason): $(condition warehouse "$1" "$2" message)"
}

# So often was a pod template, or something else in a spec, changed since it was made: WORKLOAD.
changes_of() { echo $(($(kubectl -n warehouse get "$1" -o 'jsonpath={.metadata.generation}') - 1)); }

# These count as restarts, and have to be so many; people changed the spec so many times besides: WORKLOAD RESTARTS PEOPLE.
count_changes() {
	local found
	found=$(($(changes_of "$1") - $3))
	expect "restarts of $1" "$found" "$2"
	earlier_restarts=$((earlier_restarts + found)) earlier_expected=$((earlier_expected + $2))
}

# Before they go. price-tags had three switches in its two rotations.
count_warehouse() {
	count_changes deployment/stock-sync 1 0
	count_changes daemonset/door-scanner 1 1
	count_changes deployment/shelf-web 1 2
	count_changes deployment/price-tags 3 0
}

set_price_tags_url() {
	show -n warehouse patch configmap price-tags-settings -p "{\"data\":{\"BAGS_BASE_URL\":\"$1\"}}"
}

slots_in_use() { kubectl get bacct warehouse -o 'jsonpath={.status.capacity.used}'; }

has_event() { [ -n "$(kubectl -n warehouse get events --field-selector "reason=$2,involvedObject.name=$1" -o name)" ]; }

nothing_begins() {
	local name
	say "" && say "A rotation of each key is asked for. Two would stop an application, and the account has no slot for the others:"
	ask_warehouse stock-sync decided
	ask_warehouse door-scanner decided
	ask_warehouse shelf-web decided && old_shelf=$old
	ask_warehouse price-tags decided && old_tags=$old
	await 60 "a gap keeps the rotation of stock-sync from beginning" blocked_by stock-sync 'Deployment "stock-sync" (strategy Recreate'
	await 60 "so does one of door-scanner" blocked_by door-scanner 'DaemonSet "door-scanner" (strategy OnDelete'
	await 60 "shelf-web waits for a slot" blocked_by shelf-web 'has no slot for a second key: 4 of 4 in use'
	await 60 "so does price-tags" blocked_by price-tags 'has no slot for a second key: 4 of 4 in use'
	show get bkey -n warehouse
	for name in stock-sync door-scanner; do
		expect "ZeroDowntime of $name" "$(condition warehouse "$name" ZeroDowntime status)" False
		tell_condition "$name" ZeroDowntime
	done
	for name in shelf-web price-tags; do tell_condition "$name" Rotating; done
	show get events -n warehouse --field-selector reason=RotationBlocked
	expect "slots in use" "$(slots_in_use)" 4
}

# People decide; each rotation goes on by itself.
somebody_decides() {
	say "" && say "Somebody mistypes the base URL of price-tags. Then the account gets more slots:"
	set_price_tags_url ""
	show patch bacct warehouse --type=merge -p '{"spec":{"limit":8}}'
	await 60 "the Secret of shelf-web has the new key" has_another_value warehouse shelf-web BAGS_API_KEY "$old_shelf"
	say "" && say "Before its pods are replaced, somebody pauses it:"
	show -n warehouse rollout pause deployment/shelf-web
	await 60 "the Secret of price-tags has the new key" has_another_value warehouse price-tags BAGS_API_KEY "$old_tags"
	new_tags=$(value warehouse price-tags BAGS_API_KEY)
	values+=$new_tags$'\n'
	say "" && say "The gap of stock-sync is allowed; door-scanner is let roll over:"
	show -n warehouse patch bkey stock-sync --type=merge -p '{"spec":{"rollout":{"allowGap":true}}}'
	show -n warehouse patch daemonset door-scanner -p '{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}'
	await 60 "the rotation of shelf-web tells that it is paused" says warehouse shelf-web OldKeyRevoked 'Deployment "shelf-web" (it is paused: resume it)'
	show get bkey -n warehouse shelf-web
	tell_condition shelf-web OldKeyRevoked
	expect "answer to the old key of shelf-web" "$(answer_to "$old_shelf")" 200
}

turns_back() {
	await 120 "the rotation of price-tags turns back" has_event price-tags SwitchedBack
	show -n warehouse get pods -l app=price-tags
	await 30 "its Secret holds the old key again" warehouse_holds price-tags "$old_tags"
	show get events -n warehouse --field-selector reason=SwitchedBack
	expect "answer to its old key" "$(answer_to "$old_tags")" 200
	say "It is mended, and the new key is revoked:"
	set_price_tags_url "$(base_url)"
	end_rotation 180 "the new key of price-tags is revoked" warehouse price-tags decided
	expect "answer to the new key" "$(answer_to "$new_tags")" 401
	expect "answer to the old key" "$(answer_to "$old_tags")" 200
	expect "changes of price-tags" "$(changes_of deployment/price-tags)" 2
	say "" && say "With another word the rotation is tried again:"
	ask_warehouse price-tags again
	end_rotation 180 "the old key of price-tags is revoked" warehouse price-tags again
	expect "changes of price-tags" "$(changes_of deployment/price-tags)" 3
}

# First the applications, then their keys, which go at once when nobody reads them.
close_warehouse() {
	kubectl -n warehouse delete deployments,daemonsets --all >/dev/null
	await 60 "the pods of the warehouse are gone" nobody_is_left
	kubectl -n warehouse delete bkey --all --timeout=90s >/dev/null
	kubectl delete bacct warehouse --timeout=30s >/dev/null
	kubectl delete namespace warehouse --timeout=60s >/dev/null
}

nobody_is_left() { [ -z "$(kubectl -n warehouse get pods -o name)" ]; }

warehouse() {
	local begin=$SECONDS old_shelf old_tags new_tags
	open_warehouse
	nothing_begins
	somebody_decides
	end_rotation 120 "the old key of stock-sync is revoked" warehouse stock-sync decided
	expect "changes of stock-sync" "$(changes_of deployment/stock-sync)" 1
	end_rotation 120 "the old key of door-scanner is revoked" warehouse door-scanner decided
	expect "changes of door-scanner, with that of its strategy" "$(changes_of daemonset/door-scanner)" 2
	expect "answer to the old key of shelf-web all the while" "$(answer_to "$old_shelf")" 200
	say "" && say "shelf-web is resumed:"
	show -n warehouse rollout resume deployment/shelf-web
	end_rotation 120 "the old key of shelf-web is revoked" warehouse shelf-web decided
	expect "changes of shelf-web, with pause and resumption" "$(changes_of deployment/shelf-web)" 3
	turns_back
	show get bkey -n warehouse
	show get bacct warehouse
	expect "slots in use" "$(slots_in_use)" 4
	count_warehouse
	# While their ApiKeys are there, or it would be the deletion that ended them.
	expect "old keys that are alive" "$(old_keys_alive)" 0
	expect_ledgers_to_be_right
	close_warehouse
	say "-- four rotations that waited for people, one of them turned back and tried again: $((SECONDS - begin)) s"
}
