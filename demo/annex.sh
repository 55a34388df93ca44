# Rotations of what the operator does not restart, or may not, and one whose old key people revoke: demo/annex.yaml. Sourced by
# demo/run; needs a node.

in_annex="annex tills deployment/till-web
annex tills deployment/till-sync
annex tills statefulset/till-store
annex tills deployment/till-display
annex tills deployment/till-vault
annex tills replicaset/till-kiosk
annex tills pod/till-spare
annex labels deployment/label-printer"

open_annex() {
	open_account annex user-4 >/dev/null
	show apply -f demo/annex.yaml
	show -n annex wait pods --all --for=condition=Ready --timeout=90s
	users+=$in_annex$'\n'
}

# What people read of `tills` while its rotation has not begun, or waits: these words are in the message, and those are not any
# more: TYPE WORDS [GONE].
tills_tell() { says annex tills "$1" "$2" && { [ -z "${3:-}" ] || ! says annex tills "$1" "$3"; }; }

annex_is_not_ready_for_it() {
	say "" && say "Of what reads the key of tills one is paused, one has a partition, and a rollout of one fails. A rotation is asked for:"
	show -n annex rollout pause deployment/till-web
	show -n annex set image deployment/till-sync caller=bags-consumer:mistyped
	begin_rotation annex tills annex tills BAGS_API_KEY
	old_tills=$old
	await 60 "the paused one keeps it from beginning" tills_tell Rotating 'Deployment "till-web" (it is paused)'
	await 60 "so does the partition" tills_tell Rotating 'StatefulSet "till-store" (its partition 1'
	await 90 "so does the rollout that has failed" tills_tell Rotating 'Deployment "till-sync" (its last rollout has failed'
	expect "reason why it does not begin" "$(condition annex tills Rotating reason)" RotationBlocked
	show get bkey -n annex tills
	tell_condition annex tills ZeroDowntime
	say "" && say "It goes on where it was paused, and has one replica with no room for a second one:"
	show -n annex rollout resume deployment/till-web
	await 90 "the one replica keeps it from beginning" tills_tell Rotating 'room to surge' 'it is paused'
	tell_condition annex tills Rotating
	say "Each is mended, and the rotation begins by itself:"
	show -n annex patch deployment till-web -p '{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}}}'
	show -n annex patch statefulset till-store -p '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}'
	show -n annex rollout undo deployment/till-sync
	await 120 "the Secret of tills has the new key" has_another_value annex tills BAGS_API_KEY "$old_tills"
}

# Each of those who are not restarted is named with what to do, and the message lacks it once that is done.
annex_waits_for_people() {
	local hold policy='ask the platform team for a change window'
	for hold in 'pods without an owner (they are waited for' 'ReplicaSet "till-kiosk" (restart it yourself' \
		'Deployment "till-display" (keys.bags.fm/restart is false' "$policy" till-spare; do
		await 120 "the rotation of tills says: $hold" tills_tell OldKeyRevoked "$hold"
	done
	await 120 "it restarts the others" restarts_the_others
	show get bkey -n annex tills
	tell_condition annex tills OldKeyRevoked
	expect "answer to the old key of tills" "$(answer_to "$old_tills")" 200
	say "" && say "By default people are alarmed after a week; here at once:"
	patch_key annex tills '{"spec":{"rotation":{"maxOverlap":"10s"}}}'
	await 60 "the rotation of tills is held" has_reason annex tills OldKeyRevoked RotationHeld
	await 30 "with an event" has_event annex tills RotationHeld
	tell_condition annex tills OldKeyRevoked
	say "" && say "One after the other is done:"
	show -n annex delete pod till-spare
	await 60 "the pod is named no more" tills_tell OldKeyRevoked "$policy" till-spare
	show -n annex delete pods -l app=till-kiosk
	await 60 "the ReplicaSet is named no more" tills_tell OldKeyRevoked "$policy" till-kiosk
	show -n annex rollout restart deployment/till-display
	await 60 "the Deployment of people's is named no more" tills_tell OldKeyRevoked "$policy" till-display
	tell_condition annex tills OldKeyRevoked
	expect "answer to the old key of tills" "$(answer_to "$old_tills")" 200
	say "The change window opens. The operator restarts the last one, and all goes on by itself:"
	show delete validatingadmissionpolicybinding vault-is-closed
	end_rotation 180 "the old key of tills is revoked" annex tills annex
	expect "answer to the old key of tills" "$(answer_to "$old_tills")" 401
}

restarts_the_others() {
	[ "$(changes_of annex deployment/till-web)" = 4 ] && [ "$(changes_of annex deployment/till-sync)" = 3 ] &&
		[ "$(changes_of annex statefulset/till-store)" = 2 ]
}

patch_annex() { show patch bacct annex --type=merge -p "$1"; }

labels_wait() { says annex labels OldKeyRevoked 'by spec.rollout.restart they are not restarted: restart them yourself'; }

# What may be taken from the operator while a rotation waits.
annex_takes_rights_away() {
	say "" && say "Whoever reads the key of labels is restarted by people only. A rotation is asked for:"
	begin_rotation annex labels annex labels BAGS_API_KEY
	old_labels=$old
	await 90 "the rotation of labels waits for people" labels_wait
	tell_condition annex labels OldKeyRevoked
	say "" && say "Meanwhile the platform team allows the namespace no keys any more:"
	patch_annex '{"spec":{"allowed":[{"namespaces":["elsewhere"]}]}}'
	await 60 "the rotation of labels is held" says annex labels OldKeyRevoked 'both keys stay valid meanwhile'
	tell_condition annex labels OldKeyRevoked
	expect "answer to the old key of labels" "$(answer_to "$old_labels")" 200
	patch_annex '{"spec":{"allowed":[{"namespaces":["annex"]}]}}'
	await 60 "it waits for people again" labels_wait
	say "" && say "The operator may read nothing in the namespace any more:"
	show -n annex delete rolebinding bags-operator
	await 60 "the rotation of labels tells what it may not read" says annex labels Stalled 'consumerNamespaces of the chart'
	tell_condition annex labels Stalled
	expect "answer to the old key of labels" "$(answer_to "$old_labels")" 200
	show -n annex create rolebinding bags-operator --clusterrole=bags-operator-consumers --serviceaccount=bags-system:bags-operator
	await 90 "it waits for people again" labels_wait
}

account_says() { [ "$(account_condition "$1" "$2" status)" = True ]; }

account_condition() { kubectl get bacct "$1" -o "jsonpath={.status.conditions[?(@.type==\"$2\")].$3}"; }

# On Bags' page: the id of a key.
revoke_by_hand() { request POST "/sandbox/keys/$1/revoke" 'Content-Length: 0' | sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p'; }

people_revoke() {
	local id
	say "" && say "In this account keys are revoked by people. The pods are restarted, by hand:"
	patch_annex '{"spec":{"revocation":{"mode":"Person"}}}'
	show -n annex rollout restart deployment/label-printer
	await 120 "a person is asked to revoke the old key" account_says annex RevocationNeedsPerson
	show get bkey -n annex labels
	say "  BagsAccount annex: RevocationNeedsPerson: $(account_condition annex RevocationNeedsPerson message)"
	tell_condition annex labels OldKeyRevoked
	expect "answer to the old key, which waits for a person" "$(answer_to "$old_labels")" 200
	id=$(kubectl get bacct annex -o 'jsonpath={.status.slots[?(@.state=="Revoking")].keyId}')
	say "Somebody revokes it on Bags' page:"
	expect "what the page answers" "$(revoke_by_hand "$id")" 200
	end_rotation 120 "the rotation of labels ends" annex labels annex
	expect "answer to the old key of labels" "$(answer_to "$old_labels")" 401
	patch_annex '{"spec":{"revocation":{"mode":"Auto"}}}'
}

# Restarts by the operator; changes by people: those above.
count_annex() {
	count_changes annex deployment/till-web 1 3
	count_changes annex deployment/till-sync 1 2
	count_changes annex statefulset/till-store 1 1
	count_changes annex deployment/till-vault 1 0
	count_changes annex deployment/till-display 0 1
	count_changes annex deployment/label-printer 0 1
}

annex() {
	local begin=$SECONDS old_tills old_labels
	open_annex
	annex_is_not_ready_for_it
	annex_waits_for_people
	annex_takes_rights_away
	people_revoke
	show get bkey -n annex
	count_annex
	expect "old keys that are alive" "$(old_keys_alive)" 0
	expect_ledgers_to_be_right
	kubectl delete validatingadmissionpolicy vault-is-closed >/dev/null
	close_place annex
	say "-- two rotations that waited for people, for what they are not restarted and may not be revoked: $((SECONDS - begin)) s"
}
