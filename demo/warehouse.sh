# Rotations that do not begin before somebody has decided, one that somebody pauses, and one that turns back until its schedule
# gives up, each of an application of demo/warehouse.yaml. Sourced by demo/run; needs a node.

# What demo/warehouse.yaml has, as `restarted` names it.
in_warehouse="warehouse stock-sync deployment/stock-sync
warehouse door-scanner daemonset/door-scanner
warehouse shelf-web deployment/shelf-web
warehouse price-tags deployment/price-tags"

open_warehouse() {
	local workload
	open_account warehouse user-3 >/dev/null
	for workload in price-tags stock-sync; do
		kubectl -n warehouse create configmap "$workload-settings" --from-literal=BAGS_BASE_URL="$(base_url)" >/dev/null
	done
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

# What people read about an ApiKey: NAMESPACE NAME TYPE.
tell_condition() {
	say "  $2: $3=$(condition "$1" "$2" "$3" status), $(condition "$1" "$2" "$3" reason): $(condition "$1" "$2" "$3" message)"
}

# So often was a pod template, or something else in a spec, changed since it was made: NAMESPACE WORKLOAD.
changes_of() { echo $(($(kubectl -n "$1" get "$2" -o 'jsonpath={.metadata.generation}') - 1)); }

# These count as restarts, and have to be so many; people changed the spec so many times besides: NAMESPACE WORKLOAD RESTARTS
# PEOPLE.
count_changes() {
	local found
	found=$(($(changes_of "$1" "$2") - $4))
	expect "restarts of $2 in $1" "$found" "$3"
	earlier_restarts=$((earlier_restarts + found)) earlier_expected=$((earlier_expected + $3))
}

# Before they go. price-tags had seven switches in its four rotations.
count_warehouse() {
	count_changes warehouse deployment/stock-sync 1 0
	count_changes warehouse daemonset/door-scanner 1 1
	count_changes warehouse deployment/shelf-web 1 2
	count_changes warehouse deployment/price-tags 7 0
}

# What is mistyped, or mended: NAME URL.
set_url() { show -n warehouse patch configmap "$1-settings" -p "{\"data\":{\"BAGS_BASE_URL\":\"$2\"}}"; }

patch_key() { show -n "$1" patch bkey "$2" --type=merge -p "$3"; }

slots_in_use() { kubectl get bacct warehouse -o 'jsonpath={.status.capacity.used}'; }

has_event() { [ -n "$(kubectl -n "$1" get events --field-selector "reason=$3,involvedObject.name=$2" -o name)" ]; }

nothing_begins() {
	local name
	say "" && say "A rotation of each key is asked for. Two would stop an application, and the account has no slot for the others:"
	ask_warehouse stock-sync decided && old_stock=$old
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
		tell_condition warehouse "$name" ZeroDowntime
	done
	for name in shelf-web price-tags; do tell_condition warehouse "$name" Rotating; done
	show get events -n warehouse --field-selector reason=RotationBlocked
	expect "slots in use" "$(slots_in_use)" 4
}

# People decide; each rotation goes on by itself.
somebody_decides() {
	say "" && say "Somebody mistypes the base URLs of price-tags and stock-sync. Then the account gets more slots:"
	set_url price-tags ""
	set_url stock-sync ""
	show patch bacct warehouse --type=merge -p '{"spec":{"limit":8}}'
	await 60 "the Secret of shelf-web has the new key" has_another_value warehouse shelf-web BAGS_API_KEY "$old_shelf"
	say "" && say "Before its pods are replaced, somebody pauses it:"
	show -n warehouse rollout pause deployment/shelf-web
	await_new_tags
	say "" && say "The gap of stock-sync is allowed; door-scanner is let roll over:"
	patch_key warehouse stock-sync '{"spec":{"rollout":{"allowGap":true}}}'
	show -n warehouse patch daemonset door-scanner -p '{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}'
	await 60 "the rotation of shelf-web tells that it is paused" waits_paused
	show get bkey -n warehouse shelf-web
	tell_condition warehouse shelf-web OldKeyRevoked
	expect "answer to the old key of shelf-web" "$(answer_to "$old_shelf")" 200
}

waits_paused() { says warehouse shelf-web OldKeyRevoked 'Deployment "shelf-web" (it is paused: resume it)'; }

# A rotation that waits is held for other causes as well, one after the other; each goes when it is undone.
is_held_again() {
	say "" && say "While it waits, the ApiKey of shelf-web is suspended:"
	patch_key warehouse shelf-web '{"spec":{"suspend":true}}'
	await 60 "the rotation of shelf-web is held" has_reason warehouse shelf-web OldKeyRevoked RotationHeld
	await 30 "it says that both keys stay valid" says warehouse shelf-web OldKeyRevoked 'both keys stay valid meanwhile'
	tell_condition warehouse shelf-web OldKeyRevoked
	patch_key warehouse shelf-web '{"spec":{"suspend":false}}'
	await 60 "it waits for the pods again" waits_paused
	say "" && say "Something takes managedFields away, which tell when its Secret was written:"
	show -n warehouse patch secret shelf-web --type=json -p '[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]'
	await 90 "the rotation of shelf-web cannot tell" says warehouse shelf-web OldKeyRevoked 'does not tell when Secret "shelf-web" was written'
	tell_condition warehouse shelf-web OldKeyRevoked
	expect "answer to the old key of shelf-web" "$(answer_to "$old_shelf")" 200
	say "What the message asks for:"
	show -n warehouse delete secret shelf-web
	await 90 "it waits for the pods again" waits_paused
}

# An application that ends its old pods first does not come up. No pod holds the old key, which stays valid all the same.
is_stopped_for_long() {
	await 90 "the rotation of stock-sync waits until it is up" says warehouse stock-sync OldKeyRevoked 'these are not up with the newer one yet: Deployment "stock-sync"'
	show -n warehouse get pods -l app=stock-sync
	tell_condition warehouse stock-sync OldKeyRevoked
	expect "answer to the old key of stock-sync" "$(answer_to "$old_stock")" 200
	say "It is mended:"
	set_url stock-sync "$(base_url)"
}

# The rotation of price-tags that has begun turns back, as no new pod comes up. WORD: what it was asked for with; COUNT: the
# changes of its template when it is over.
turns_back() {
	await 120 "the Secret of price-tags holds the old key again" warehouse_holds price-tags "$old_tags"
	if [ "$1" = decided ]; then
		await 30 "the rotation of price-tags has turned back" has_event warehouse price-tags SwitchedBack
		show -n warehouse get pods -l app=price-tags
		show get events -n warehouse --field-selector reason=SwitchedBack
	fi
	expect "answer to its old key" "$(answer_to "$old_tags")" 200
	say "It is mended, and the new key is revoked:"
	set_url price-tags "$(base_url)"
	end_rotation 180 "the new key of price-tags is revoked" warehouse price-tags "$1"
	expect "answer to the new key" "$(answer_to "$new_tags")" 401
	expect "answer to the old key" "$(answer_to "$old_tags")" 200
	expect "changes of price-tags" "$(changes_of warehouse deployment/price-tags)" "$2"
}

# Somebody asks once more for what was turned back, and makes the same mistake: WORD.
asks_again() {
	say "" && say "The rotation of price-tags is asked for again, and the base URL is mistyped again:"
	set_url price-tags ""
	ask_warehouse price-tags "$1"
	await_new_tags
}

# Sets `new_tags`.
await_new_tags() {
	await 60 "the Secret of price-tags has the new key" has_another_value warehouse price-tags BAGS_API_KEY "$old_tags"
	new_tags=$(value warehouse price-tags BAGS_API_KEY)
	values+=$new_tags$'\n'
}

# After three in a row the schedule begins no further one. Whoever asks for one gets it.
gives_up() {
	say "" && say "Three in a row were turned back. A schedule begins no fourth, although one is due:"
	patch_key warehouse price-tags '{"spec":{"rotation":{"every":"1m"}}}'
	await 60 "the schedule begins no fourth" blocked_by price-tags 'the last 3 were turned back'
	show get bkey -n warehouse price-tags
	tell_condition warehouse price-tags Rotating
	patch_key warehouse price-tags '{"spec":{"rotation":{"every":null}}}'
	say "" && say "With another word the rotation is tried again:"
	ask_warehouse price-tags again
	end_rotation 180 "the old key of price-tags is revoked" warehouse price-tags again
	expect "changes of price-tags" "$(changes_of warehouse deployment/price-tags)" 7
}

# A schedule that nobody can read begins nothing, and says so.
mistypes_zone() {
	say "" && say "price-tags gets a schedule again, with a time zone that is mistyped:"
	patch_key warehouse price-tags "$(in_zone Europe/Atlantis)"
	await 60 "the schedule of price-tags is not understood" blocked_by price-tags '"Europe/Atlantis", which does not exist'
	tell_condition warehouse price-tags Rotating
	patch_key warehouse price-tags "$(in_zone Europe/Berlin)"
	await 60 "price-tags has a next rotation" has_next_rotation price-tags
	show get bkey -n warehouse price-tags -o wide
}

in_zone() {
	printf '{"spec":{"rotation":{"every":"2160h","windows":[{"days":["Sat"],"from":"02:00","duration":"4h","timeZone":"%s"}]}}}' "$1"
}

has_next_rotation() { [ -n "$(kubectl -n warehouse get bkey "$1" -o 'jsonpath={.status.nextRotation}')" ]; }

# First the applications, then their keys, which go at once when nobody reads them.
close_place() { # NAME: of the namespace and of its account
	kubectl -n "$1" delete deployments,daemonsets,statefulsets,replicasets,pods --all >/dev/null
	await 60 "the pods of $1 are gone" nobody_is_left "$1"
	kubectl -n "$1" delete bkey --all --timeout=90s >/dev/null
	kubectl delete bacct "$1" --timeout=30s >/dev/null
	kubectl delete namespace "$1" --timeout=60s >/dev/null
}

nobody_is_left() {
	local pods
	pods=$(kubectl -n "$1" get pods -o name) && [ -z "$pods" ]
}

# While price-tags turns back, again and again, the others go on.
warehouse() {
	local begin=$SECONDS old_shelf old_stock old_tags new_tags
	open_warehouse
	nothing_begins
	somebody_decides
	is_held_again
	is_stopped_for_long
	turns_back decided 2
	asks_again second
	end_rotation 120 "the old key of stock-sync is revoked" warehouse stock-sync decided
	expect "changes of stock-sync" "$(changes_of warehouse deployment/stock-sync)" 1
	end_rotation 120 "the old key of door-scanner is revoked" warehouse door-scanner decided
	expect "changes of door-scanner, with that of its strategy" "$(changes_of warehouse daemonset/door-scanner)" 2
	turns_back second 4
	asks_again third
	expect "answer to the old key of shelf-web all the while" "$(answer_to "$old_shelf")" 200
	say "" && say "shelf-web is resumed:"
	show -n warehouse rollout resume deployment/shelf-web
	end_rotation 120 "the old key of shelf-web is revoked" warehouse shelf-web decided
	expect "changes of shelf-web, with pause and resumption" "$(changes_of warehouse deployment/shelf-web)" 3
	turns_back third 6
	gives_up
	mistypes_zone
	show get bkey -n warehouse
	show get bacct warehouse
	expect "slots in use" "$(slots_in_use)" 4
	count_warehouse
	# While their ApiKeys are there, or it would be the deletion that ended them.
	expect "old keys that are alive" "$(old_keys_alive)" 0
	expect_ledgers_to_be_right
	close_place warehouse
	say "-- seven rotations, three of three applications and four of one key, of which three were turned back: $((SECONDS - begin)) s"
}
