"""The commands of `sora-batch`, with the examples of their `--help`."""

from actors.cli import (
    audit,
    costs,
    create,
    database,
    doctor,
    fetch,
    inspect,
    manage,
    retry,
    run,
    serve,
    sheet,
    simulator,
    submit,
    watch,
    web,
)
from actors.cli.app import add

add(
    run.run,
    "run prompts.txt --output films",
    "run -p 'A sunset over the ocean' -p 'City lights at night' --duration 8",
    "run batch.yaml --concurrency 5 --name 'Nature scenes' --metadata team=blue",
    "run prompts.csv --simulate --json > batch.json",
    "run - --quiet < prompts.txt",
    "run -p 'A boat' --input-reference 'shots/*.png' --takes 3 --seed 7 --param fps=24",
    "run batch.yaml --output films --filename '{index:02} {metadata.product} take {take}'",
)
add(
    create.create,
    "create batch.yaml --dry-run",
    "create batch.yaml --id nature && sora-batch resume nature",
    "create prompts.csv --defaults house-style.yaml --budget '20 USD'",
)
add(create.quote, "quote batch.yaml", "quote prompts.txt --model sora-2 --duration 8 --takes 3 --json")
add(run.demo, "demo", "demo --web", "demo --output films")
add(
    costs.costs,
    "costs",
    "costs --since 30d --by day",
    "costs --by metadata.team --csv > costs.csv",
    "costs --settle 3f0c... released",
)
add(inspect.status, "status nature", "status nature --json", "status nature --remote")
add(inspect.list_, "list", "list --status failed --metadata team=blue")
add(manage.cancel, "cancel nature", "cancel nature --reason 'wrong prompts'", "cancel nature --remote")
add(
    retry.retry,
    "retry nature",
    "retry nature --job 2 --prompt 'A calm sea'",
    "retry nature --set 2.duration=8 --set 2.params.fps=24",
    "retry nature --job 3 --pay-again",
)
add(run.resume, "resume", "resume nature --output films")
add(audit.audit, "audit", "audit --checksums --json")
add(inspect.history, "history nature", "history nature --from 12 --json")
add(
    fetch.fetch,
    "fetch nature --output films",
    "fetch nature water --output films --filename '{id} {prompt:.30}'",
    "fetch nature --remote --json",
)
add(sheet.sheet, "sheet nature", "sheet nature --output nature.webp", "sheet nature --page 2 --json")
add(serve.serve, "serve", "serve --simulate", "serve --no-migrate")
add(web.web, "web", "web 8080 --no-open", "web --simulate")
add(database.migrate, "migrate", "migrate --json", "migrate --restored")
add(
    submit.submit,
    "submit prompts.txt",
    "submit batch.yaml --watch",
    "submit batch.yaml --id nature --require-service",
    "submit -p 'A sunset over the ocean' --duration 8 --json",
)
add(watch.watch, "watch nature", "watch --bind 'batch.completed.#' --json", "watch nature --json | jq .type")
add(manage.delete, "delete nature", "delete nature water --keep-files", "delete nature --remote --json")
add(database.prune, "prune", "prune --older-than 7d --batches", "prune --older-than 90d --files")
add(
    simulator.simulator,
    "simulator --port 8089",
    "simulator --latency 1-3 --failure-rate 0.2 --seed 7",
    "simulator --moderation blood --rate-limit 2/s --api-key secret",
)
add(doctor.doctor, "doctor", "doctor --json", "doctor --declare")
