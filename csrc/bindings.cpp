// The Python modules: pcnn._C with the CPU ops, and, compiled with PCNN_WITH_CUDA, pcnn._cuda.
// Tensors are passed as address, shape and strides, so no module depends on a version of torch.
#include <pybind11/pybind11.h>

#include <array>
#include <vector>

#include "checks.h"
#include "decode_faces.h"
#include "landmark_crop.h"
#include "stitch_regions.h"
#include "warp_add.h"
#ifndef PCNN_WITH_CUDA
#include <pybind11/stl.h>

#include "layers.h"
#endif

namespace py = pybind11;

namespace pcnn {
namespace {

#ifdef PCNN_WITH_CUDA
#define PCNN_MODULE _cuda
constexpr bool kNeedsWorkspace = true;  // of decode_faces
struct Place {
  int device;
  std::uintptr_t stream;
};
void run(const CropRegions& op, const View* views, Place at) {
  crop_regions_cuda(op, views, at.device, reinterpret_cast<void*>(at.stream));
}
void run(const LandmarkCrop& op, const View* views, Place at) {
  landmark_crop_cuda(op, views, at.device, reinterpret_cast<void*>(at.stream));
}
void run(const StitchRegions& op, Place at) {
  stitch_regions_cuda(op, at.device, reinterpret_cast<void*>(at.stream));
}
void run(const WarpAdd& op, Place at) {
  warp_add_cuda(op, at.device, reinterpret_cast<void*>(at.stream));
}
void run(const DecodeFaces& op, const FacesWork& work, Place at) {
  decode_faces_cuda(op, work, at.device, reinterpret_cast<void*>(at.stream));
}
Place place_of(std::int64_t device, std::uintptr_t stream) {
  return {static_cast<int>(device), stream};
}
#else
#define PCNN_MODULE _C
constexpr bool kNeedsWorkspace = false;
struct Place {
  int threads;
};
void run(const CropRegions& op, const View* views, Place at) {
  crop_regions_cpu(op, views, at.threads);
}
void run(const LandmarkCrop& op, const View* views, Place at) {
  landmark_crop_cpu(op, views, at.threads);
}
void run(const StitchRegions& op, Place at) { stitch_regions_cpu(op, at.threads); }
void run(const WarpAdd& op, Place at) { warp_add_cpu(op, at.threads); }
void run(const DecodeFaces& op, const FacesWork&, Place at) { decode_faces_cpu(op, at.threads); }
Place place_of(std::int64_t threads, std::uintptr_t) { return {static_cast<int>(threads)}; }
#endif

// Converts a tuple of N integers. pybind11's own conversion of sequences takes ten times as long.
// That matters for a call with sixty numbers that computes for five microseconds.
template <std::size_t N>
std::array<std::int64_t, N> integers(const py::handle& tuple) {
  std::array<std::int64_t, N> numbers;
  require(PyTuple_Check(tuple.ptr()) && PyTuple_GET_SIZE(tuple.ptr()) == N,
          "expected a tuple of " + std::to_string(N) + " integers");
  for (std::size_t index = 0; index < N; ++index) {
    numbers[index] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), index));
    if (numbers[index] == -1 && PyErr_Occurred()) throw py::error_already_set();
  }
  return numbers;
}

// The arguments that both crops have. image: address, 3 sizes, 3 strides.
CropRegions crop_of(const std::string& op_name, const py::tuple& image, std::int64_t faces,
                    const py::tuple& outs, const py::tuple& mean, const py::tuple& std,
                    double footprint, int dtype) {
  const auto [address, rows, columns, colours, row_stride, column_stride, channel_stride] =
      integers<7>(image);
  require(rows >= 1 && columns >= 1 && colours == 3,
          op_name + ": image must be (height, width, 3)");
  require(faces >= 0, op_name + ": faces must not be negative");
  require((mean.size() == 1 || mean.size() == 3) && std.size() == mean.size(),
          op_name + ": mean and std must be one or three numbers");
  require(footprint > 0, op_name + ": footprint must be above 0");
  CropRegions op = {};
  op.image = {static_cast<const std::uint8_t*>(pointer_of(op_name.c_str(), "image", address, 1)),
              rows,
              columns,
              row_stride,
              column_stride,
              channel_stride};
  op.faces = faces;
  op.view_count = static_cast<std::int64_t>(outs.size());
  op.normalisation.channels = static_cast<int>(mean.size());
  for (std::size_t channel = 0; channel < mean.size(); ++channel) {
    op.normalisation.shift[channel] = static_cast<float>(255.0 * mean[channel].cast<double>());
    op.normalisation.scale[channel] = static_cast<float>(255.0 * std[channel].cast<double>());
  }
  op.footprint = footprint;
  op.dtype = dtype_of(op_name.c_str(), dtype);
  return op;
}

// A view without mirror image and corner.
View view_of(const std::string& op_name, std::int64_t address, std::int64_t height,
             std::int64_t width, std::int64_t faces) {
  constexpr std::int64_t kLimit = std::numeric_limits<std::int32_t>::max();
  require(height >= 1 && width >= 1 && height <= kLimit / width,
          op_name + ": sizes must be at least 1 × 1 and less than 2^31 pixels");
  return {pointer_of(op_name.c_str(), "out", address, faces), nullptr, height, width, 0, 0};
}

// image: see crop_of. outs: address, height, width of each view.
void crop_regions(const py::tuple& image, std::int64_t transforms, std::int64_t faces,
                  const py::tuple& outs, const py::tuple& mean, const py::tuple& std,
                  double footprint, int dtype, std::int64_t place, std::uintptr_t stream) {
  constexpr const char* kOp = "crop_regions";
  CropRegions op = crop_of(kOp, image, faces, outs, mean, std, footprint, dtype);
  op.transforms =
      static_cast<const float*>(pointer_of(kOp, "transforms", transforms, faces * op.view_count));
  std::vector<View> views;
  for (const py::handle& out : outs) {
    const auto [address, height, width] = integers<3>(out);
    views.push_back(view_of(kOp, address, height, width, faces));
  }
  const py::gil_scoped_release release;
  run(op, views.data(), place_of(place, stream));
}

// image: see crop_of. places: x, y of each landmark. outs: address, that of the mirror image or 0,
// height, width, top, left of each view.
void landmark_crop(const py::tuple& image, std::int64_t landmarks, std::int64_t faces,
                   const py::tuple& places, const py::tuple& outs, const py::tuple& mean,
                   const py::tuple& std, double footprint, int dtype, std::int64_t place,
                   std::uintptr_t stream) {
  constexpr const char* kOp = "landmark_crop";
  LandmarkCrop op = {};
  static_cast<CropRegions&>(op) = crop_of(kOp, image, faces, outs, mean, std, footprint, dtype);
  op.landmarks = static_cast<const float*>(pointer_of(kOp, "landmarks", landmarks, faces));
  require(places.size() == 2 * kLandmarks, "landmark_crop: template must be 5 pairs of numbers");
  double numbers[kLandmarks][2];
  for (std::size_t index = 0; index < places.size(); ++index) {
    numbers[index / 2][index % 2] = places[index].cast<double>();
  }
  op.places = places_of(numbers);
  std::vector<View> views;
  for (const py::handle& out : outs) {
    const auto [address, mirror, height, width, top, left] = integers<6>(out);
    View view = view_of(kOp, address, height, width, faces);
    require(views.empty() || (mirror == 0) == (views[0].mirror == nullptr),
            "landmark_crop: all views must have a mirror image, or none");
    view.mirror = reinterpret_cast<void*>(static_cast<std::uintptr_t>(mirror));
    view.top = top;
    view.left = left;
    views.push_back(view);
  }
  const py::gil_scoped_release release;
  run(op, views.data(), place_of(place, stream));
}

// Each map: address, 4 sizes, 4 strides.
void stitch_regions(const py::tuple& regions, const py::tuple& out, int dtype, std::int64_t place,
                    std::uintptr_t stream) {
  constexpr const char* kOp = "stitch_regions";
  constexpr const char* kNames[] = {"left eye", "right eye", "left cheek", "right cheek", "mouth"};
  require(regions.size() == 5, "stitch_regions: regions must be 5 maps");
  StitchRegions op = {};
  const auto numbers = integers<9>(out);
  op.batch = numbers[1];
  op.channels = numbers[2];
  op.out = map_of(kOp, "out", numbers, op.batch, op.channels);
  op.dtype = dtype_of(kOp, dtype);
  for (int i = 0; i < 5; ++i) {
    const auto region = integers<9>(PyTuple_GET_ITEM(regions.ptr(), i));
    op.regions[i] = map_of(kOp, kNames[i], region, op.batch, op.channels);
  }
  for (int left = 0; left < 4; left += 2) {
    require(op.regions[left].height == op.regions[left + 1].height,
            std::string(kOp) + ": " + kNames[left + 1] + " must be as high as " + kNames[left]);
  }
  require(op.regions[4].width == op.out.width, "stitch_regions: mouth must have the width of out");
  const py::gil_scoped_release release;
  run(op, place_of(place, stream));
}

void warp_add(const py::tuple& stitched, std::int64_t theta, const py::tuple& face,
              const py::tuple& out, int dtype, std::int64_t place, std::uintptr_t stream) {
  constexpr const char* kOp = "warp_add";
  WarpAdd op = {};
  const auto numbers = integers<9>(out);
  op.batch = numbers[1];
  op.channels = numbers[2];
  op.out = map_of(kOp, "out", numbers, op.batch, op.channels);
  op.stitched = map_of(kOp, "stitched", integers<9>(stitched), op.batch, op.channels);
  op.face = map_of(kOp, "face", integers<9>(face), op.batch, op.channels);
  for (const Map* map : {&op.stitched, &op.face}) {
    require(map->height == op.out.height && map->width == op.out.width,
            "warp_add: stitched, face and out must have one shape");
  }
  op.theta = static_cast<const float*>(pointer_of(kOp, "theta", theta, op.batch));
  op.dtype = dtype_of(kOp, dtype);
  const py::gil_scoped_release release;
  run(op, place_of(place, stream));
}

// The addresses of the workspace, in FacesWork's order; zeros where the module needs none.
FacesWork work_of(const char* op, const py::tuple& addresses, std::int64_t elements) {
  if (!kNeedsWorkspace) elements = 0;
  const auto [counts, keys, ranked, rivals] = integers<4>(addresses);
  return {static_cast<int*>(pointer_of(op, "counts", counts, elements)),
          static_cast<std::uint64_t*>(pointer_of(op, "keys", keys, elements)),
          static_cast<float*>(pointer_of(op, "ranked", ranked, elements)),
          static_cast<std::uint64_t*>(pointer_of(op, "rivals", rivals, elements))};
}

// predictions: address, 3 sizes, 3 strides. limits: least logit, least score, overlap, large side.
void decode_faces(const py::tuple& predictions, std::int64_t anchors, const py::tuple& variances,
                  const py::tuple& limits, std::int64_t most, std::int64_t out,
                  const py::tuple& work, std::int64_t place, std::uintptr_t stream) {
  constexpr const char* kOp = "decode_faces";
  constexpr std::int64_t kLimit = std::numeric_limits<std::int32_t>::max();
  const auto [address, batch, count, values, batch_stride, anchor_stride, value_stride] =
      integers<7>(predictions);
  require(batch >= 0 && count >= 0 && count <= kLimit && values == kFaceValues,
          "decode_faces: predictions must be (batch, anchors, 15)");
  require(variances.size() == 2 && limits.size() == 4,
          "decode_faces: variances must be 2 numbers, and limits 4");
  require(most >= 1 && most <= kMostFaces, "decode_faces: most must be 1 to 2048");
  const std::int64_t all = batch * count;
  DecodeFaces op = {};
  op.predictions = static_cast<const float*>(pointer_of(kOp, "predictions", address, all));
  op.batch = batch;
  op.count = count;
  op.batch_stride = batch_stride;
  op.anchor_stride = anchor_stride;
  op.value_stride = value_stride;
  op.anchors = static_cast<const float*>(pointer_of(kOp, "anchors", anchors, all));
  for (int index : {0, 1}) op.variances[index] = variances[index].cast<float>();
  op.least_logit = limits[0].cast<float>();
  op.min_score = limits[1].cast<float>();
  op.iou = limits[2].cast<float>();
  op.large = limits[3].cast<float>();
  op.most = most;
  op.out = static_cast<float*>(pointer_of(kOp, "out", out, batch));
  const FacesWork own = work_of(kOp, work, all);
  const py::gil_scoped_release release;
  run(op, own, place_of(place, stream));
}

#ifndef PCNN_WITH_CUDA
int maps_of(std::int64_t number) {
  require(number >= 0 && number < (1 << 20), "Layers: unknown maps");
  return static_cast<int>(number);
}

float* floats_at(const char* name, std::int64_t address) {
  return static_cast<float*>(pointer_of("Layers", name, address, 1));
}

// Each input: maps, address, height, width.
std::vector<Layers::Input> inputs_of(const py::tuple& tuples) {
  std::vector<Layers::Input> inputs;
  for (const py::handle& own : tuples) {
    const auto [maps, address, height, width] = integers<4>(own);
    inputs.push_back({maps_of(maps), floats_at("an input", address), height, width});
  }
  return inputs;
}

// source: maps, first channel, channels. out: likewise. shape: kernel, stride, padding.
void add_layer(Layers& layers, int kind, const py::tuple& source, const py::tuple& out,
               const py::tuple& shape, int onto, double leak, double most, bool exact,
               bool winograd, std::int64_t weights, std::int64_t bias) {
  require(kind >= 0 && kind <= 3, "Layers: kind must be 0 to 3");
  Layer layer = {};
  layer.kind = static_cast<LayerKind>(kind);
  const auto from = integers<3>(source), to = integers<3>(out), places = integers<3>(shape);
  for (const auto& numbers : {from, to, places}) {
    for (std::int64_t number : numbers) {
      require(number >= -1 && number < (1 << 20), "Layers: a number is out of range");
    }
  }
  layer.source = static_cast<int>(from[0]);
  layer.source_first = static_cast<int>(from[1]);
  layer.width = static_cast<int>(from[2]);
  layer.out = static_cast<int>(to[0]);
  layer.out_first = static_cast<int>(to[1]);
  layer.channels = static_cast<int>(to[2]);
  layer.kernel = static_cast<int>(places[0]);
  layer.stride = static_cast<int>(places[1]);
  layer.padding = static_cast<int>(places[2]);
  layer.onto = onto;
  layer.leak = static_cast<float>(leak);
  layer.most = static_cast<float>(most);
  layer.exact = exact;
  layer.winograd = winograd;
  layers.add(std::move(layer), reinterpret_cast<const float*>(static_cast<std::uintptr_t>(weights)),
             reinterpret_cast<const float*>(static_cast<std::uintptr_t>(bias)));
}

// outputs: maps, address of each.
void run_layers(const Layers& layers, const py::tuple& inputs, const py::tuple& outputs,
                std::int64_t batch, int threads) {
  const std::vector<Layers::Input> given = inputs_of(inputs);
  std::vector<Layers::Output> wanted;
  for (const py::handle& own : outputs) {
    const auto [maps, address] = integers<2>(own);
    wanted.push_back({maps_of(maps), floats_at("an output", address)});
  }
  const py::gil_scoped_release release;
  layers.run(given, wanted, batch, threads);
}

std::vector<Layers::Size> sizes_of_maps(const Layers& layers, const py::tuple& inputs) {
  std::vector<Layers::Input> given;
  for (const py::handle& own : inputs) {
    const auto [maps, height, width] = integers<3>(own);
    given.push_back({maps_of(maps), nullptr, height, width});
  }
  return layers.sizes(given);
}

void bind_layers(py::module_& module) {
  py::class_<Layers>(module, "Layers")
      .def(py::init<const std::string&>())
      .def("add_maps", &Layers::add_maps)
      .def("add", &add_layer, py::arg("kind"), py::arg("source"), py::arg("out"), py::arg("shape"),
           py::arg("onto"), py::arg("leak"), py::arg("most"), py::arg("exact"), py::arg("winograd"),
           py::arg("weights") = 0, py::arg("bias") = 0)
      .def("weights",
           [](const Layers& layers, int number) {
             const std::vector<float> found = layers.weights(number);
             return py::bytes(reinterpret_cast<const char*>(found.data()),
                              found.size() * sizeof(float));
           })
      .def("sizes", &sizes_of_maps)
      .def("run", &run_layers);
}
#endif

}  // namespace
}  // namespace pcnn

PYBIND11_MODULE(PCNN_MODULE, module) {
  module.def("decode_faces", &pcnn::decode_faces);
  module.def("crop_regions", &pcnn::crop_regions);
  module.def("landmark_crop", &pcnn::landmark_crop);
  module.def("stitch_regions", &pcnn::stitch_regions);
  module.def("warp_add", &pcnn::warp_add);
  module.attr("NEEDS_WORKSPACE") = pcnn::kNeedsWorkspace;  // of decode_faces
#ifndef PCNN_WITH_CUDA
  pcnn::bind_layers(module);
#endif
  module.attr("BUILD") = PCNN_BUILD;
  module.attr("SOURCES") = PCNN_SOURCES;  // the hash of its sources: compiler.py, sources_hash
}
