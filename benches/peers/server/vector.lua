-- Vectors, one after another: wrk -s vector.lua URL -- FILE DIM json|binary, the file with raw f32.
local bodies = {}
function init(args)
  local file = assert(io.open(args[1], "rb"))
  local dim, form = tonumber(args[2]), args[3]
  local ffi = require("ffi")
  for _ = 1, 1000 do
    local raw = file:read(dim * 4)
    if not raw then break end
    if form == "binary" then
      bodies[#bodies + 1] = raw
    else
      local numbers, text = ffi.cast("const float*", raw), {}
      for i = 0, dim - 1 do text[i + 1] = string.format("%.7g", numbers[i]) end
      bodies[#bodies + 1] = '{"vector":[' .. table.concat(text, ",") .. "]}"
    end
  end
  file:close()
  wrk.method = "POST"
  wrk.headers["content-type"] = form == "binary" and "application/octet-stream" or "application/json"
end
local at = 0
function request()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
