# Rotations that have to wait, side by side: for a job, for an application that does not end, for one that does not come up,
# and for somebody outside of the cluster who still uses the old key. Sourced by demo/run; needs a node.

# So many calls of the CronJob's job, twice a second: it has begun before the switch, and ends long after it.
job_calls=80

# What demo/holds.yaml has, as `restarted` names it.
held="shop mobile-backend deployment/mobile-backend
shop-development web-dashboard deployment/web-dashboard"
never_restarted="shop background-jobs cronjob/settlement"

prepare_holds() {
	local name
	kubectl -n shop patch configmap bags-settings --type=merge \
		-p "{\"data\":{\"CALLS\":\"$job_calls\",\"LINGER\":\"true\"}}" >/dev/null
	kubectl -n shop-development create configmap bags-settings --from-literal=BAGS_BASE_URL="$(base_url)" >/dev/null
	show apply -f demo/holds.yaml
	show -n shop rollout status deployment/mobile-backend --timeout=90s
	show -n shop-development rollout status deployment/web-dashboard --timeout=90s
	note_templates "$held"
	note_templates "$never_restarted" 0
	users+=$held$'\n'$never_restarted$'\n'
	for name in background-jobs mobile-backend; do shorten_overlap shop "$name"; done
	shorten_overlap shop-development web-dashboard
}

base_url() { value shop web-dashboard-bags BAGS_BASE_URL; }

# What is mistyped, or mended, in development.
set_base_url() { show -n shop-development patch configmap bags-settings -p "{\"data\":{\"BAGS_BASE_URL\":\"$1\"}}"; }

# The pods of an application, by phase and name; those that are deleted, by name: NAMESPACE LABEL.
phases() { kubectl -n "$1" get pods -l "$2" -o 'jsonpath={range .items[*]}{.status.phase} {.metadata.name}{"\n"}{end}'; }

going() { kubectl -n "$1" get pods -l "$2" -o 'jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.name}{"\n"}{end}'; }

# No pipes: grep would end before the other has told all, and that would be taken for a failure.
job_runs() { grep -q '^Running ' <<<"$(phases shop app=settlement)"; }

both_go() { [ "$(going shop app=mobile-backend | grep -c .)" = 2 ]; }

goes_on_calling() { grep -q ': 200$' <<<"$(kubectl -n shop logs "$1" | sed -n '/Asked to end/,$p')"; }

says() { grep -qF "$4" <<<"$(condition "$1" "$2" "$3" message)"; }

# What a person sees of a rotation that waits: NAMESPACE NAME, and the old key, which works.
show_hold() {
	show get bkey -n "$1" "$2"
	say "  OldKeyRevoked=$(condition "$1" "$2" OldKeyRevoked status), $(condition "$1" "$2" OldKeyRevoked reason): $(condition "$1" "$2" OldKeyRevoked message)"
	expect "answer to the old key meanwhile" "$(answer_to "$3")" 200
	say "  Bags answers 200 to the old key."
}

# When a key was revoked: its id.
revoked_at() { request GET /sandbox/keys | grep -o '{[^{}]*}' | grep "\"id\":\"$1\"" | sed 's/.*"revokedAt":"\([^"]*\)".*/\1/'; }

# No second of the first time is after the second: both as the API server and the sandbox write them, on this one machine.
not_after() { [[ ! "${1:0:19}" > "${2:0:19}" ]]; }

# The pods of the mobile backend take their minute to end, with the old key.
show_slow_end() {
	local pod
	await 120 "both old pods of the mobile backend are asked to end" both_go
	for pod in $(going shop app=mobile-backend); do
		await 30 "$pod goes on calling" goes_on_calling "$pod"
		await 30 "the rotation says that it waits for $pod" says shop mobile-backend OldKeyRevoked "$pod"
	done
	show_hold shop mobile-backend "$1"
}

# The dashboard in development does not come up, with the old key valid, until it is mended.
show_failed_rollout() {
	await 120 "the rotation in development is held" says shop-development web-dashboard OldKeyRevoked "does not come up"
	show -n shop-development get pods
	show_hold shop-development web-dashboard "$1"
	show get events -n shop-development --field-selector reason=RotationHeld
	say "It is mended:"
	set_base_url "$(base_url)"
}

holds() {
	local begin=$SECONDS job_pod job_key old_jobs old_mobile old_development old_dashboard ended
	prepare_holds

	say "" && say "Somebody mistypes the base URL of the dashboard in development. Its pods do not mind, as yet:"
	set_base_url ""
	begin_rotation shop-development web-dashboard holds web-dashboard BAGS_API_KEY
	old_development=$old
	say "" && say "The mobile backend has a minute to end, and takes it:"
	begin_rotation shop mobile-backend holds mobile-backend bags-api-key.txt
	old_mobile=$old
	say "" && say "Whoever calls from outside of the cluster forgets to take the new key:"
	: >"$work/forgotten"
	begin_rotation shop web-dashboard holds web-dashboard-bags BAGS_API_KEY
	old_dashboard=$old

	say "" && say "A job has begun with the old key:"
	await 150 "the CronJob's job runs" job_runs
	job_pod=$(phases shop app=settlement | sed -n 's/^Running //p' | head -n 1)
	job_key=$(kubectl -n shop get bkey background-jobs -o 'jsonpath={.status.current.keyId}')
	begin_rotation shop background-jobs holds background-jobs BAGS_API_KEY
	old_jobs=$old
	await 60 "the Secret has the new key" has_another_value shop background-jobs BAGS_API_KEY "$old_jobs"
	await 60 "the rotation says that it waits for the job" says shop background-jobs OldKeyRevoked "$job_pod"
	show_hold shop background-jobs "$old_jobs"
	show -n shop get pod "$job_pod"
	expect "the job's pod after the switch" "$(phases shop app=settlement | grep -xF "Running $job_pod")" "Running $job_pod"

	show_slow_end "$old_mobile"
	show_failed_rollout "$old_development"

	await 120 "the rotation tells of an unknown caller" says shop web-dashboard OldKeyRevoked "an unknown caller uses it"
	show_hold shop web-dashboard "$old_dashboard"
	say "" && say "By default people are alarmed after a week; here at once:"
	show -n shop patch bkey web-dashboard --type=merge -p '{"spec":{"rotation":{"maxOverlap":"10s"}}}'
	await 60 "the rotation is held" has_reason shop web-dashboard OldKeyRevoked RotationHeld
	expect "answer to the old key after maxOverlap" "$(answer_to "$old_dashboard")" 200
	show get events -n shop --field-selector reason=RotationHeld
	say "The caller is given the new value. All four go on by themselves:"
	rm "$work/forgotten"

	await 120 "the job has ended" test_ended "$job_pod" "$old_jobs"
	end_rotation 120 "the old key of the job is revoked" shop background-jobs holds
	ended=$(kubectl -n shop get pod "$job_pod" -o 'jsonpath={.status.containerStatuses[0].state.terminated.finishedAt}')
	say "  the job ended at $ended, its key was revoked at $(revoked_at "$job_key")"
	not_after "$ended" "$(revoked_at "$job_key")" || fail "the key was revoked while the job ran"
	expect "calls of the job that were answered" "$(kubectl -n shop logs "$job_pod" | grep -c ': 200$')" "$job_calls"
	expect "changes of the CronJob" "$(kubectl -n shop get cronjob settlement -o 'jsonpath={.metadata.generation}')" 1
	end_rotation 120 "the caller's old key is revoked" shop web-dashboard holds
	end_rotation 180 "the old key in development is revoked" shop-development web-dashboard holds
	end_rotation 180 "the old key of the mobile backend is revoked" shop mobile-backend holds
	for old in "$old_jobs" "$old_mobile" "$old_development" "$old_dashboard"; do
		expect "answer to an old key" "$(answer_to "$old")" 401
	done
	kubectl -n shop patch bkey web-dashboard --type=merge -p '{"spec":{"rotation":{"maxOverlap":null}}}' >/dev/null
	show get bkey -A
	show get events -n shop --field-selector reason=RotationFinished
	say "-- four rotations that had to wait, side by side: $((SECONDS - begin)) s"
}

# The job's pod has ended; until then Bags takes its key: POD VALUE.
test_ended() {
	local answer
	answer=$(answer_to "$2")
	if grep -qxF "Running $1" <<<"$(phases shop app=settlement)"; then
		expect "answer to the key of the running job" "$answer" 200
		return 1
	fi
}

end_holds() {
	kubectl delete -f demo/holds.yaml --wait=false >/dev/null
}
