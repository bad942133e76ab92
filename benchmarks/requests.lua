-- What wrk sends: the bodies of the file BODIES, whose first line is the path, in turns.
local requests, number = {}, 0

function init(_)
    local path
    for line in io.lines(os.getenv("BODIES")) do
        if path then
            local headers = { ["content-type"] = "application/json" }
            requests[#requests + 1] = wrk.format("POST", path, headers, line)
        else
            path = line
        end
    end
end

function request()
    number = number % #requests + 1
    return requests[number]
end

function done(summary, latency, _)
    local errors, failed = summary.errors, 0
    for _, count in pairs(errors) do
        failed = failed + count
    end
    io.write(string.format(
        '{"requests": %d, "failed": %d, "seconds": %f, "p50": %f, "p99": %f}\n',
        summary.requests, failed, summary.duration / 1e6,
        latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
