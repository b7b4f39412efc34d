-- Photographs as raw bodies, one after another: wrk -s photo.lua URL -- FOLDER-LIST
local photos = {}
function init(args)
  for name in io.lines(args[1]) do
    local file = assert(io.open(name, "rb"))
    photos[#photos + 1] = file:read("*a")
    file:close()
  end
  wrk.method = "POST"
  wrk.headers["content-type"] = "image/jpeg"
end
local at = 0
function request()
  at = at % #photos + 1
  return wrk.format(nil, nil, nil, photos[at])
end
