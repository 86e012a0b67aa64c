-- What the audit events above bound.low and up to bound.high count for: name, labels, value.
event AS MATERIALIZED (
    SELECT subject_type, split_part(subject, ' ', 1) AS what, old_status, new_status, action,
           CASE WHEN subject_type IN ('deployment', 'step') THEN subject_id::bigint END AS row_id
    FROM bound JOIN provisioning_auditevent ON id > bound.low AND id <= bound.high
),
deployment_end AS MATERIALIZED (
    SELECT event.what, event.new_status, ended.created_at, ended.started_at, ended.finished_at
    FROM event LEFT JOIN provisioning_deployment ended ON ended.id = event.row_id
    WHERE event.subject_type = 'deployment' AND event.new_status = ANY(%(terminal)s)
),
step_end AS MATERIALIZED (
    SELECT event.what, event.new_status, COALESCE(template.driver, 'unknown') AS driver,
           ended.started_at, ended.finished_at,
           GREATEST(deployment.started_at, (
               SELECT max(needed.finished_at) FROM provisioning_step_needs link
               JOIN provisioning_step needed ON needed.id = link.to_step_id
               WHERE link.from_step_id = ended.id)) AS ready_at
    FROM event
    LEFT JOIN provisioning_step ended ON ended.id = event.row_id
    LEFT JOIN provisioning_deployment deployment ON deployment.id = ended.deployment_id
    LEFT JOIN provisioning_resource resource ON resource.id = ended.resource_id
    LEFT JOIN provisioning_resourcetemplateversion version
        ON version.id = resource.template_version_id
    LEFT JOIN provisioning_resourcetemplate template ON template.id = version.template_id
    WHERE event.subject_type = 'step' AND event.new_status <> ''
      AND event.new_status <> ALL(%(unfinished)s)
),
took AS MATERIALIZED (
    SELECT 'deployment_phase_seconds' AS name, jsonb_build_object('phase', 'waiting') AS labels,
           started_at - created_at AS time
    FROM deployment_end
    UNION ALL
    SELECT 'deployment_phase_seconds', jsonb_build_object('phase', 'running'),
           finished_at - started_at
    FROM deployment_end
    UNION ALL
    SELECT 'step_phase_seconds', jsonb_build_object('phase', 'queued', 'driver', driver),
           started_at - ready_at
    FROM step_end
    UNION ALL
    SELECT 'step_phase_seconds', jsonb_build_object('phase', 'running', 'driver', driver),
           finished_at - started_at
    FROM step_end
),
duration AS MATERIALIZED (
    SELECT name, labels, GREATEST(EXTRACT(epoch FROM time)::float8, 0) AS seconds
    FROM took WHERE time IS NOT NULL
),
counted AS (
    SELECT 'deployments_submitted' AS name, jsonb_build_object('kind', what) AS labels,
           count(*)::float8 AS value
    FROM event WHERE subject_type = 'deployment' AND old_status = '' AND new_status <> ''
    GROUP BY 2
    UNION ALL
    SELECT 'deployments_finished', jsonb_build_object('kind', what, 'status', new_status), count(*)
    FROM deployment_end GROUP BY 2
    UNION ALL
    SELECT 'steps_finished',
           jsonb_build_object('action', what, 'driver', driver, 'status', new_status), count(*)
    FROM step_end GROUP BY 2
    UNION ALL
    SELECT 'leases_lost', '{}'::jsonb, count(*)
    FROM event
    WHERE subject_type = 'step' AND old_status = 'running' AND new_status IN ('recovering', 'pending')
    HAVING count(*) > 0
    UNION ALL
    SELECT 'recoveries', jsonb_build_object('outcome', new_status), count(*)
    FROM event WHERE subject_type = 'step' AND old_status = 'recovering' GROUP BY 2
    UNION ALL
    SELECT 'database_errors', '{}'::jsonb, count(*)
    FROM event WHERE action = %(database_lost)s HAVING count(*) > 0
    UNION ALL
    SELECT name || '_bucket', labels || jsonb_build_object('le', le::text), count(*)
    FROM duration JOIN unnest(%(buckets)s::float8[]) le ON seconds <= le GROUP BY 1, 2
    UNION ALL
    SELECT name || '_count', labels, count(*) FROM duration GROUP BY 1, 2
    UNION ALL
    SELECT name || '_sum', labels, sum(seconds) FROM duration GROUP BY 1, 2
)
