-- Sends GET requests for the codes of a file in its order, each thread its own share of them, from prepared
-- strings: wrk then spends the same on every server.
-- Arguments: file, host, number of threads.

local threads = 0

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local agents = {
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
  "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
}
local requests = {}
local count, next = 0, 0

function init(args)
  local host, share, line = args[2], tonumber(args[3]), 0
  for code in io.lines(args[1]) do
    if line % share == id then
      count = count + 1
      requests[count] = "GET /" .. code .. " HTTP/1.1\r\nHost: " .. host .. "\r\nUser-Agent: " .. agents[count % #agents + 1] ..
        "\r\nAccept: text/html\r\nAccept-Language: de-DE,de;q=0.9\r\nReferer: https://news.example.com/\r\n\r\n"
    end
    line = line + 1
  end
end

function request()
  next = next + 1
  if next > count then next = 1 end
  return requests[next]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect, e.read, e.write, e.status, e.timeout))
end
